#include "cpu/convert.h"
#include "cpu/pool.h"
#include "test/check.h"

using namespace td;
using namespace check;

namespace {

const char* kNumbers[] = {"axis",  "groups",   "epsilon", "upsample", "depth",        "k",     "numSegments", "dim",
                          "value", "maxPeriod", "scale",   "heads",    "constantValue", "alpha", "clipValueMin", "clipValueMax",
                          "onValue", "offValue", "downscaleFreqShift"};
const char* kLists[] = {"perm",  "begin", "size",  "strides", "paddings", "reps",        "shape",
                        "dims",  "pad",   "dilations", "inputShape", "filterShape", "axis"};
const char* kFlags[] = {"transposeA", "transposeB", "exclusive", "reverse", "alignCorners", "halfPixelCenters", "flipSinToCos"};

Tensor any_tensor() {
  Shape shape;
  const int64_t rank = random_integer(0, 5);
  for (int64_t i = 0; i < rank; ++i) shape.push(random_integer(0, 5));
  return as_type(random_tensor(shape), static_cast<DType>(random_integer(0, 4)));
}

double any_number() {
  const double special[] = {-1, 0, 1, 2, 3, 0.5, 1e9, -1e18, NAN, INFINITY};
  return random_integer(0, 3) ? static_cast<double>(random_integer(-2, 6)) : special[random_integer(0, 9)];
}

void any_attributes(Attributes& attributes) {
  for (const char* name : kLists) {
    if (random_integer(0, 1)) continue;
    std::vector<double> list(random_integer(0, 10));
    for (double& value : list) value = any_number();
    attributes.set(name, list);
  }
  for (const char* name : kNumbers)
    if (random_integer(0, 3)) attributes.set(name, any_number());
  for (const char* name : kFlags)
    if (random_integer(0, 1)) attributes.set(name, random_integer(0, 1) == 1);
  const char* activations[] = {"linear", "silu", "gelu", "geglu", "nonsense"};
  attributes.set("activation", std::string(activations[random_integer(0, 4)]));
  const char* types[] = {"float32", "int32", "bool", "bfloat16", "string"};
  attributes.set("dtype", std::string(types[random_integer(0, 4)]));
  attributes.set("physical", std::string(types[random_integer(0, 4)]));
  attributes.set("mode", std::string(random_integer(0, 1) ? "reflect" : "symmetric"));
}

}  // namespace

TEST_CASE("no input does more than throw") {
  // What does not fit has to end in an exception; sanitizers see to the rest.
  MemoryPool::instance().set_limit(MemoryPool::instance().info().in_use + (size_t{256} << 20));
  int completed = 0;
  for (int id = 0; id < Registry::instance().size(); ++id) {
    for (int round = 0; round < 400; ++round) {
      Call call;
      const int64_t count = random_integer(0, 6);
      const Tensor first = any_tensor();
      for (int64_t i = 0; i < count; ++i) {
        const int64_t kind = random_integer(0, 3);
        call.inputs.push_back(kind == 0 ? any_tensor() : kind == 1 && i > 1 ? Tensor() : first);
      }
      any_attributes(call.attributes);
      if (failure([&] { Registry::instance().run(id, call); }).empty()) {
        ++completed;
        for (const Tensor& output : call.outputs) floats(output);
      }
    }
  }
  MemoryPool::instance().set_limit(0);
  CHECK(completed > 1000);
}

TEST_CASE("errors name kernel and inputs") {
  const std::string message = failure([] {
    run("Conv2dFused", {random_tensor({1, 4, 4, 320}), random_tensor({3, 3, 640, 8})}, [](Attributes& a) {
      a.set("strides", std::vector<double>{1, 1});
      a.set("pad", std::vector<double>{1, 1, 1, 1});
    });
  });
  CHECK(message == "[Conv2dFused] filter expects 640 input channels, got 320 (inputs: float32[1,4,4,320], float32[3,3,640,8])");
}

TEST_CASE("gradients of resizing check their sizes") {
  const auto message = [](const Shape& images, const Shape& dy) {
    return failure([&] { run("ResizeNearestNeighborGrad", {random_tensor(images), random_tensor(dy)}); });
  };
  CHECK(message({1, 2, 2, 3}, {1, 4, 4, 3}).empty());
  CHECK(message({2, 2, 2, 3}, {1, 4, 4, 3}).find("differs from images") != std::string::npos);
  CHECK(message({1, 2, 2, 3}, {1, 4, 4, 2}).find("differs from images") != std::string::npos);
  CHECK(message({1, 0, 2, 3}, {1, 4, 4, 3}).find("empty image") != std::string::npos);
}

TEST_CASE("a limit below need leaves everything usable") {
  MemoryPool& pool = MemoryPool::instance();
  const Tensor x = random_tensor({256, 256}), w = random_tensor({256, 256});
  pool.trim();
  pool.set_limit(pool.info().in_use + 100000);
  CHECK(failure([&] { run("Linear", {x, w}); }).find("[Linear] needs ") == 0);
  pool.set_limit(0);
  CHECK(run("Linear", {x, w})[0].elements() == 65536);
}
