#pragma once
#include <array>
#include <string>
#include <vector>

namespace td::tensorflow {

enum class AttributeType { number, integer, text };

struct OpAttribute {
  const char* name;
  AttributeType type;
};

/// A kernel of this library as an op of TensorFlow, of the same name. Every tensor is float32.
struct Op {
  const char* name;
  std::vector<const char*> inputs;
  /// The last input, which may be absent: a list of none or one tensor, with the attribute `optional` as its length. Or null.
  const char* optional;
  std::vector<const char*> outputs;
  std::vector<OpAttribute> attributes;
};

/// The kernels that do more for TensorFlow than its own ops: attention without an N x N matrix, and norms in one pass.
const std::array<Op, 6>& ops();

/// Adds every op, and a kernel of each for the processor, to the TensorFlow whose library lies at `path`; once per process.
/// Throws a KernelError with TensorFlow's message when it refuses.
void register_ops(const std::string& path);

}  // namespace td::tensorflow
