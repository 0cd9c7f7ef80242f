#pragma once
#include <array>
#include <dnnl.hpp>
#include <initializer_list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/kernel.h"

/// The only place that knows which oneDNN this is: everything that differs between 2.6 and 3.x goes through here.
namespace td::onednn {

using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;

inline dnnl::engine& engine() {
  static dnnl::engine* instance = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *instance;
}
inline dnnl::stream& stream() {
  static dnnl::stream* instance = new dnnl::stream(engine());
  return *instance;
}

inline dnnl::memory::data_type type_of(DType type) {
  switch (type) {
    case DType::f32:
      return dnnl::memory::data_type::f32;
    case DType::bf16:
      return dnnl::memory::data_type::bf16;
    case DType::f16:
      return dnnl::memory::data_type::f16;
    case DType::i32:
      return dnnl::memory::data_type::s32;
    default:
      return dnnl::memory::data_type::u8;
  }
}

/// Whether products of bfloat16 run here; without, bfloat16 is a storage format like float16.
inline bool multiplies_bf16() {
#if defined(__x86_64__)
  constexpr int kAvx512 = static_cast<int>(dnnl_cpu_isa_avx512_core);
  return (static_cast<int>(dnnl_get_effective_cpu_isa()) & kAvx512) == kAvx512;
#else
  return false;
#endif
}

inline Desc desc(const Dims& dims, DType type, Tag tag) { return Desc(dims, type_of(type), tag); }
inline Desc desc(const Dims& dims, DType type, const Dims& strides) { return Desc(dims, type_of(type), strides); }

enum class Activation { linear, silu, gelu, quick_gelu };

/// What happens to the sum of products: activation, then a tensor of the output's shape is added.
struct Epilogue {
  Activation activation = Activation::linear;
  bool residual = false;

  /// Argument number of the residual.
  int residual_argument() const {
    return DNNL_ARG_ATTR_MULTIPLE_POST_OP(activation == Activation::linear ? 0 : 1) | DNNL_ARG_SRC_1;
  }
};

inline void append_eltwise(dnnl::post_ops& ops, dnnl::algorithm algorithm, float alpha, float beta) {
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(algorithm, alpha, beta);
#else
  ops.append_eltwise(1.0f, algorithm, alpha, beta);
#endif
}

inline dnnl::primitive_attr attributes(const Epilogue& epilogue, const Desc& output) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
  switch (epilogue.activation) {
    case Activation::silu:
      append_eltwise(ops, dnnl::algorithm::eltwise_swish, 1.0f, 0.0f);
      break;
    case Activation::quick_gelu:
      append_eltwise(ops, dnnl::algorithm::eltwise_swish, 1.702f, 0.0f);
      break;
    case Activation::gelu:
      append_eltwise(ops, dnnl::algorithm::eltwise_gelu_erf, 0.0f, 0.0f);
      break;
    case Activation::linear:
      break;
  }
  if (epilogue.residual) ops.append_binary(dnnl::algorithm::binary_add, output);
  if (ops.len() > 0) attr.set_post_ops(ops);
  return attr;
}

struct ConvolutionShape {
  Dims source, weights, output, strides, dilations, pad_begin, pad_end;
};

inline dnnl::convolution_forward::primitive_desc convolution(const ConvolutionShape& s, const Desc& source, const Desc& weights,
                                                             const Desc* bias, const Desc& output,
                                                             const dnnl::primitive_attr& attr) {
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::convolution_forward::primitive_desc(engine(), kind, algorithm, source, weights, bias ? *bias : Desc(), output,
                                                   s.strides, s.dilations, s.pad_begin, s.pad_end, attr);
#else
  using Description = dnnl::convolution_forward::desc;
  const Description d = bias ? Description(kind, algorithm, source, weights, *bias, output, s.strides, s.dilations, s.pad_begin,
                                           s.pad_end)
                             : Description(kind, algorithm, source, weights, output, s.strides, s.dilations, s.pad_begin,
                                           s.pad_end);
  return dnnl::convolution_forward::primitive_desc(d, attr, engine());
#endif
}

inline dnnl::convolution_backward_data::primitive_desc convolution_backward_data(
    const ConvolutionShape& s, const Desc& source, const Desc& weights, const Desc& output,
    const dnnl::convolution_forward::primitive_desc& hint, const dnnl::primitive_attr& attr) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::convolution_backward_data::primitive_desc(engine(), algorithm, source, weights, output, s.strides, s.dilations,
                                                         s.pad_begin, s.pad_end, hint, attr);
#else
  return dnnl::convolution_backward_data::primitive_desc(
      dnnl::convolution_backward_data::desc(algorithm, source, weights, output, s.strides, s.dilations, s.pad_begin, s.pad_end),
      attr, engine(), hint);
#endif
}

inline dnnl::convolution_backward_weights::primitive_desc convolution_backward_weights(
    const ConvolutionShape& s, const Desc& source, const Desc& weights, const Desc& output,
    const dnnl::convolution_forward::primitive_desc& hint, const dnnl::primitive_attr& attr) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::convolution_backward_weights::primitive_desc(engine(), algorithm, source, weights, output, s.strides,
                                                            s.dilations, s.pad_begin, s.pad_end, hint, attr);
#else
  return dnnl::convolution_backward_weights::primitive_desc(
      dnnl::convolution_backward_weights::desc(algorithm, source, weights, output, s.strides, s.dilations, s.pad_begin,
                                               s.pad_end),
      attr, engine(), hint);
#endif
}

inline dnnl::matmul::primitive_desc matmul(const Desc& source, const Desc& weights, const Desc* bias, const Desc& output,
                                           const dnnl::primitive_attr& attr) {
#if DNNL_VERSION_MAJOR >= 3
  return bias ? dnnl::matmul::primitive_desc(engine(), source, weights, *bias, output, attr)
              : dnnl::matmul::primitive_desc(engine(), source, weights, output, attr);
#else
  return bias ? dnnl::matmul::primitive_desc(dnnl::matmul::desc(source, weights, *bias, output), attr, engine())
              : dnnl::matmul::primitive_desc(dnnl::matmul::desc(source, weights, output), attr, engine());
#endif
}

/// The arguments of one call, by their numbers. Not a map, as dnnl::primitive::execute takes it: filling one costs a small product a
/// third of its time.
class Arguments {
 public:
  Arguments(std::initializer_list<std::pair<int, dnnl::memory>> arguments) {
    for (const auto& [number, memory] : arguments) emplace(number, memory);
  }
  void emplace(int number, dnnl::memory memory) {
    require(count_ < kMost, "a primitive takes at most ", kMost, " arguments");
    handles_[count_] = {number, memory.get()};
    memories_[count_++] = std::move(memory);
  }
  int count() const { return count_; }
  const dnnl_exec_arg_t* handles() const { return handles_.data(); }

 private:
  static constexpr int kMost = 6;
  std::array<dnnl_exec_arg_t, kMost> handles_;
  std::array<dnnl::memory, kMost> memories_;
  int count_ = 0;
};

inline dnnl::memory memory(const Desc& desc, const void* data) {
  return dnnl::memory(desc, engine(), const_cast<void*>(data));
}

/// Runs a primitive with its scratch memory taken from the pool.
inline void execute(const dnnl::primitive& primitive, const Desc& scratch, Arguments arguments) {
  std::unique_ptr<Buffer> workspace;
  if (const size_t bytes = scratch.get_size()) {
    workspace = std::make_unique<Buffer>(bytes);
    arguments.emplace(DNNL_ARG_SCRATCHPAD, memory(scratch, workspace->data()));
  }
  dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive.get(), stream().get(), arguments.count(), arguments.handles()),
                          "could not execute a primitive");
  stream().wait();
}

void reorder(const Desc& from_desc, const void* from, const Desc& to_desc, void* to);

/// A primitive ready to run, with the formats it chose.
struct Ready {
  enum Slot { kSource, kWeights, kOutput, kBias, kResidual, kSlots };

  Ready(dnnl::primitive p, const Desc& s, const Desc& w, const Desc& o, const Desc& work, const Epilogue& e, const Desc& b = {})
      : primitive(std::move(p)), source(s), weights(w), output(o), scratch(work), bias(b), epilogue(e) {}

  dnnl::primitive primitive;
  Desc source, weights, output, scratch, bias;
  /// What the primitive does; the caller does the rest.
  Epilogue epilogue;

  /// The memory object of an argument, kept from call to call and pointed at the data of this one: making one takes 0.3 us, a tenth of
  /// a small kernel. Kernels run one at a time, so nobody else holds it.
  const dnnl::memory& at(Slot slot, const void* data) const {
    dnnl::memory& kept = kept_[slot];
    if (!kept) {
      const Desc* const descs[] = {&source, &weights, &output, &bias, &output};
      kept = dnnl::memory(*descs[slot], engine(), DNNL_MEMORY_NONE);
    }
    kept.set_data_handle(const_cast<void*>(data));
    return kept;
  }

 private:
  mutable std::array<dnnl::memory, kSlots> kept_;
};

/// Primitives by what they compute: shapes, types, epilogue.
class PrimitiveCache {
 public:
  template <typename Make>
  std::shared_ptr<const Ready> get(const std::string& key, const Make& make) {
    const auto found = entries_.find(key);
    if (found != entries_.end()) return found->second;
    if (entries_.size() >= kMost) entries_.clear();
    auto ready = std::make_shared<const Ready>(make());
    entries_.emplace(key, ready);
    return ready;
  }
  static PrimitiveCache& instance() {
    static PrimitiveCache* cache = new PrimitiveCache;
    return *cache;
  }

 private:
  static constexpr size_t kMost = 2048;
  std::unordered_map<std::string, std::shared_ptr<const Ready>> entries_;
};

/// Numbers joined into a key of the cache.
class Key {
 public:
  explicit Key(const char* kind) : text_(kind) {}
  Key& add(int64_t value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Key& add(const Dims& values) {
    add(static_cast<int64_t>(values.size()));
    for (int64_t value : values) add(value);
    return *this;
  }
  Key& add(const Epilogue& e) { return add(static_cast<int>(e.activation) * 2 + e.residual); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// Weights in the format of a primitive.
struct Packed : PackedWeights {
  /// What the packing was made for: 'c' convolution, 'm' matrix product, 't' three matrices together, 'u' upsampling convolution.
  char kind;
  /// Type of the weights and of the products. Where they differ the weights lie in the order of the wider format and
  /// are widened for each use.
  DType stored, computed;
  struct Part {
    Dims dims;
    /// Formats of the compute type.
    Desc plain, packed;
    BufferPtr data;
    mutable std::weak_ptr<Buffer> widened;
  };
  std::vector<Part> parts;

  /// The numbers of a part in the compute type; whoever holds on to them spares later calls the widening.
  BufferPtr numbers(size_t part) const;
  void unpack(void* plain) const override;
};

}  // namespace td::onednn
