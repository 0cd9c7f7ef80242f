// The host side of the backend on the emulated driver: launches, memory, transfers, graphs, and the compiler where it is installed.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <numeric>

#include "core/device.h"
#include "cuda/compiler.h"
#include "cuda/dispatch.h"
#include "cuda/graph.h"
#include "cuda/kernels/movement.cuh"
#include "cuda/libraries.h"
#include "cuda/memory.h"
#include "cuda/transfer.h"

using namespace td;
using namespace td::cuda;

namespace {

Tensor tensor(const Shape& shape, const std::vector<float>& numbers) { return upload_tensor(DType::f32, shape, numbers.data()); }

std::vector<float> numbers_of(const Tensor& x) {
  std::vector<float> result(x.elements());
  device().download(*x.storage, DType::f32, result.data());
  return result;
}

Tensor run(const char* name, std::vector<Tensor> inputs) {
  if (Registry::instance().find("GatherV2") < 0) device().register_kernels(Registry::instance());
  Call call;
  call.inputs = std::move(inputs);
  const Registry& registry = Registry::instance();
  registry.run(registry.find(name), call);
  return call.outputs[0];
}

size_t in_use() { return DeviceMemory::instance().info().in_use; }

struct Limit {
  explicit Limit(size_t bytes) { DeviceMemory::instance().set_limit(bytes); }
  ~Limit() { DeviceMemory::instance().set_limit(0); }
};

}  // namespace

namespace td::cuda::test {
enum class Choice : int { one, two };
template <class T, int N, bool Flag, Choice C>
__global__ void template_kernel(T*) {}
}  // namespace td::cuda::test

TEST_CASE("kernels are named as NVRTC wants them") {
  CHECK(kernel_expression("N2td4cuda6detail10KernelNameIXadL_ZNS0_11fill_kernelItEEvPT_S4_xEEEE") == "td::cuda::fill_kernel<unsigned short>");
  CHECK(detail::expression_of<fill_kernel<uint32_t>>() == "td::cuda::fill_kernel<unsigned int>");
  CHECK(detail::expression_of<check_index_kernel>() == "td::cuda::check_index_kernel");
  CHECK(detail::expression_of<test::template_kernel<half16, 40, true, test::Choice::two>>() ==
        "td::cuda::test::template_kernel<td::cuda::half16, 40, true, (td::cuda::test::Choice)1>");
}

TEST_CASE("memory: what is in use, the peak, reuse at once, trim") {
  DeviceMemory& memory = DeviceMemory::instance();
  memory.trim();
  const size_t before = in_use();
  void* first;
  {
    const Buffer a(1000), b(5 << 20);
    first = a.data();
    CHECK(in_use() == before + 1024 + (5 << 20));
    CHECK(reinterpret_cast<uintptr_t>(a.data()) % 256 == 0);
    memory.reset_peak();
  }
  CHECK(in_use() == before);
  CHECK(memory.info().peak == before + 1024 + (5 << 20));
  CHECK(memory.info().pooled > 0);
  CHECK(Buffer(1000).data() == first);
  memory.trim();
  CHECK(memory.info().pooled == 0);
}

TEST_CASE("neighbours join when they are freed, in any order") {
  Arena arena;
  std::vector<char> segment(64 * 512);
  arena.add_segment(segment.data(), segment.size());
  std::vector<char*> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(arena.allocate(512));
  CHECK(arena.allocate(512) == nullptr);
  for (int i = 0; i < 64; ++i) arena.free(blocks[i * 37 % 64], 512);
  CHECK(arena.allocate(64 * 512) == segment.data());
  arena.free(segment.data(), 64 * 512);
  int given = 0;
  arena.release(0, [&](char* at) { given += at == segment.data(); });
  CHECK(given == 1);
  CHECK(arena.free_bytes() == 0);
}

TEST_CASE("segments that lie side by side stay apart") {
  Arena arena;
  std::vector<char> memory(2 * 1024);
  arena.add_segment(memory.data(), 1024);
  arena.add_segment(memory.data() + 1024, 1024);
  CHECK(arena.allocate(2048) == nullptr);
  char *a = arena.allocate(1024), *b = arena.allocate(1024);
  arena.free(a, 1024);
  arena.free(b, 1024);
  int given = 0;
  arena.release(0, [&](char*) { ++given; });
  CHECK(given == 2);
}

TEST_CASE("the limit is exact, out of memory is typed, and the next call works") {
  DeviceMemory::instance().trim();
  const Limit limit(in_use() + (1 << 20));
  { const Buffer fits(1 << 20); }
  CHECK_THROWS_AS(Buffer((1 << 20) + 1), OutOfMemory);
  { const Buffer fits(1 << 20); }
  CHECK_THROWS_AS(Buffer(size_t{1} << 50), OutOfMemory);
  CHECK(numbers_of(run("Add", {tensor({2}, {1, 2}), tensor({2}, {3, 4})})) == std::vector<float>{4, 6});
}

TEST_CASE("a card that is full is out of memory too, after what is kept for reuse went back") {
  DeviceMemory& memory = DeviceMemory::instance();
  memory.trim();
  const size_t free = memory.info().free;
  CHECK_THROWS_AS(Buffer(free + (1 << 20)), OutOfMemory);
  { const Buffer most(free - (64 << 20)); }
  { const Buffer most(free - (65 << 20)); }
  memory.trim();
}

TEST_CASE("transfers: every type, permuted, longer than a piece") {
  const std::vector<float> numbers{1, 2.5f, -3, 4, 5, 1e-3f};
  const Permutation order{1, 0};
  for (DType type : {DType::f32, DType::bf16, DType::f16, DType::i32}) {
    Storage storage(type, 6);
    device().upload(numbers.data(), DType::f32, {2, 3}, &order, storage);
    std::vector<float> got(6);
    device().download(storage, DType::f32, got.data());
    for (int i = 0; i < 6; ++i) CHECK(got[i] == doctest::Approx(type == DType::i32 ? std::trunc(numbers[i % 2 * 3 + i / 2]) : numbers[i % 2 * 3 + i / 2]).epsilon(0.01));
  }
  std::vector<float> many(3 << 20);
  std::iota(many.begin(), many.end(), 0.f);
  CHECK(numbers_of(tensor({3 << 20}, many)) == many);
  const Tensor x = tensor({3 << 20}, many);
  std::vector<float> later(many.size());
  const auto finish = device().begin_download(*x.storage, DType::f32, later.data());
  finish();
  CHECK(later == many);
}

TEST_CASE("a graph replays a step on new numbers; its addresses are its own") {
  const size_t before = in_use();
  {
    const Tensor x = tensor({3}, {1, 2, 3}), two = tensor({1}, {2});
    begin_capture();
    Tensor y = run("Multiply", {run("Add", {x, x}), two});
    CHECK_THROWS_WITH_AS(numbers_of(y), doctest::Contains("must not do"), KernelError);
    CHECK_THROWS_WITH_AS(tensor({1}, {1}), doctest::Contains("must not do"), KernelError);
    const std::unique_ptr<Graph> graph = end_capture();
    const Buffer other(1 << 20);  // must not get the memory of the step
    std::vector<char> noise(1 << 20, 1);
    send(noise.data(), other.data(), noise.size());
    graph->replay();
    CHECK(numbers_of(y) == std::vector<float>{4, 8, 12});
    const float fresh[] = {10, 20, 30};
    send(fresh, x.storage->plain->data(), sizeof fresh);
    graph->replay();
    CHECK(numbers_of(y) == std::vector<float>{40, 80, 120});
  }
  CHECK(in_use() == before);
}

TEST_CASE("a capture that fails is forgotten") {
  begin_capture();
  CHECK_THROWS_AS(begin_capture(), KernelError);
  cancel_capture();
  cancel_capture();
  CHECK_THROWS_AS(end_capture(), KernelError);
  CHECK(numbers_of(run("Neg", {tensor({1}, {3})})) == std::vector<float>{-3});
}

TEST_CASE("an index outside is an error that says which") {
  const int32_t places[] = {0, 5};
  const Tensor x = tensor({1, 1, 4, 2}, std::vector<float>(8)), index = upload_tensor(DType::i32, {1, 2}, places);
  CHECK_THROWS_WITH_AS(run("GatherV2", {x, index}), doctest::Contains("the index value 5 is not in [0, 3]"), KernelError);
}

TEST_CASE("images go to disk and back; what is cut off is refused") {
  const Image image{std::string("\0code\n\t", 7), {{"td::cuda::a<1, 2>", "_Za"}, {"b", "c"}}};
  const std::string bytes = serialize(image);
  CHECK(deserialize(bytes).code == image.code);
  CHECK(deserialize(bytes).names == image.names);
  for (size_t length = 0; length < bytes.size(); ++length) CHECK(deserialize(bytes.substr(0, length)).code.empty());
}

TEST_CASE("Turing has no bfloat16 kernels") {
  CHECK(exists_for("td::cuda::unary_kernel<td::cuda::bfloat16>", 80));
  CHECK_FALSE(exists_for("td::cuda::unary_kernel<td::cuda::bfloat16>", 75));
  CHECK(exists_for("td::cuda::unary_kernel<td::cuda::half16>", 75));
}

TEST_CASE("a library that is not there is told by name, with what brings it") {
  const Library none = open_library({"libnone.so.1"}, "install none");
  CHECK_FALSE(none);
  CHECK(none.problem == "libnone.so.1 was not found; install none");
}

TEST_CASE("NVRTC compiles, the cache answers the second time, and errors are the compiler's") {
  if (!nvrtc_library()) {
    MESSAGE("skipped: ", nvrtc_library().problem);
    return;
  }
  char folder[] = "/tmp/tfjs-diffusers-cuda-XXXXXX";
  REQUIRE(mkdtemp(folder));
  setenv("XDG_CACHE_HOME", folder, 1);
  const std::string sources = folder;
  std::ofstream(sources + "/a.cuh") << "#include \"b.cuh\"\ntemplate <int N> __global__ void k(float* x) { x[threadIdx.x] = N + kOne; }\n";
  std::ofstream(sources + "/b.cuh") << "constexpr int kOne = 1;\n";
  const CompileRequest request{sources, "a.cuh", {"k<3>"}, "sm_80"};
  const Image first = compile(request);
  CHECK(first.names.at("k<3>") == "_Z1kILi3EEvPf");
  CHECK(first.code.size() > 500);
  CHECK(compile(request).code == first.code);
  std::ofstream(sources + "/b.cuh") << "constexpr int kOne = 2;\n";
  CHECK(compile(request).code != first.code);
  std::ofstream(sources + "/b.cuh") << "constexpr int kOne = nothing;\n";
  CHECK_THROWS_WITH_AS(compile(request), doctest::Contains("nothing"), KernelError);
  CHECK_THROWS_WITH_AS(compile({sources, "none.cuh", {}, "sm_80"}), doctest::Contains("is not there"), KernelError);
  system(("rm -r " + sources).c_str());
}
