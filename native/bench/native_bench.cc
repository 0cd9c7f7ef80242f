// Measures the convolutions and linears of the Stable Diffusion 1.5 UNet (guidance pair, 64 x 64 latents) and VAE: this library's
// kernels beside a bare oneDNN primitive on packed weights. Prints GFLOP/s, the best of some runs each.
#include <omp.h>
#include <time.h>

#include <cstdio>
#include <cstring>
#include <functional>

#include "core/device.h"
#include "cpu/dnnl_api.h"
#include "cpu/linear.h"

using namespace td;
using namespace td::onednn;

namespace {

/// Of the wall; of the processor with one thread, so that other programs on the machine disturb less.
double now() {
  timespec time;
  clock_gettime(omp_get_max_threads() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double best_seconds(const std::function<void()>& work) {
  work();
  const double first = now();
  work();
  // Reading the clock takes as long as a small call.
  const int calls = static_cast<int>(std::min(1000.0, std::max(1.0, 2e-3 / std::max(1e-7, now() - first))));
  double best = 1e9, total = 0;
  for (int i = 0; i < 40 && (i < 3 || total < 0.6); ++i) {
    const double start = now();
    for (int call = 0; call < calls; ++call) work();
    const double seconds = now() - start;
    best = std::min(best, seconds / calls);
    total += seconds;
  }
  return best;
}

Tensor random(DType type, const Shape& shape) {
  Tensor x = Tensor::empty(DType::f32, shape);
  uint32_t state = 1;
  for (int64_t i = 0; i < x.elements(); ++i) {
    state = state * 1664525u + 1013904223u;
    x.mutable_data<float>()[i] = (static_cast<float>(state >> 8) / 16777216.0f - 0.5f) * 0.1f;
  }
  Call cast;
  cast.inputs = {x};
  cast.attributes.set("physical", std::string(name_of(type)));
  Registry::instance().run(Registry::instance().find("PhysicalCast"), cast);
  return cast.outputs[0];
}

double run_kernel(const char* name, const std::vector<Tensor>& inputs, const std::function<void(Attributes&)>& set) {
  const int id = Registry::instance().find(name);
  return best_seconds([&] {
    Call call;
    call.inputs = inputs;
    set(call.attributes);
    Registry::instance().run(id, call);
  });
}

void convolution(DType type, int64_t batch, int64_t size, int64_t in, int64_t out, int64_t stride) {
  const int64_t to = size / stride;
  const double work = 2.0 * batch * to * to * in * out * 9 / 1e9;
  ConvolutionShape s{{batch, in, size, size}, {out, in, 3, 3}, {batch, out, to, to}, {stride, stride}, {0, 0}, {1, 1}, {1, 1}};
  if (stride == 2) s.pad_end = {0, 0};
  const auto bare = [&](Tag tag) {
    const Desc bias = desc({out}, DType::f32, Tag::a);
    const auto d = td::onednn::convolution(s, desc(s.source, type, tag), desc(s.weights, type, Tag::any), &bias,
                                           desc(s.output, type, tag), attributes({}, bias));
    dnnl::memory x(d.src_desc(), engine()), w(d.weights_desc(), engine()), b(bias, engine()), y(d.dst_desc(), engine());
    for (auto* m : {&x, &w, &b, &y}) std::memset(m->get_data_handle(), 0, m->get_desc().get_size());
    dnnl::convolution_forward primitive(d);
    const double seconds = best_seconds([&] {
      execute(primitive, d.scratchpad_desc(), {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_BIAS, b}, {DNNL_ARG_DST, y}});
    });
    return std::make_pair(work / seconds, std::string(d.impl_info_str()));
  };
  const auto any = bare(Tag::any), nhwc = bare(Tag::nhwc);
  Tensor weights = random(type, {3, 3, in, out});
  const double kernel =
      run_kernel("Conv2dFused", {random(type, {batch, size, size, in}), weights, random(DType::f32, {out})}, [&](Attributes& a) {
        a.set("strides", std::vector<double>{double(stride), double(stride)});
        a.set("pad", stride == 2 ? std::vector<double>{1, 1, 1, 1} : std::vector<double>{1, 1, 1, 1});
      });
  std::printf("conv3x3 %-8s %3ldx%-3ld %4ld -> %-4ld /%ld  any %6.1f (%s)  nhwc %6.1f (%s)  kernel %6.1f  ratio %.3f\n", name_of(type),
              (long)size, (long)size, (long)in, (long)out, (long)stride, any.first, any.second.c_str(), nhwc.first,
              nhwc.second.c_str(), work / kernel, work / kernel / std::max(any.first, nhwc.first));
  std::fflush(stdout);
}

void linear_layer(DType type, int64_t rows, int64_t in, int64_t out, const char* activation, bool residual) {
  const double work = 2.0 * rows * in * out / 1e9;
  const Desc source = desc({rows, in}, type, Tag::ab), output = desc({rows, out}, type, Tag::ab);
  const Desc bias = desc({1, out}, DType::f32, Tag::ab);
  // The bare primitive has the activation and the residual, too; there is none with GEGLU, beside which it does the product alone.
  const bool geglu = !std::strcmp(activation, "geglu");
  const Epilogue epilogue{geglu ? Activation::linear : activation_of(activation), residual};
  const auto d = matmul(source, desc({in, out}, type, Tag::any), &bias, output, attributes(epilogue, output));
  dnnl::memory x(source, engine()), w(d.weights_desc(), engine()), b(bias, engine()), y(output, engine()), r(output, engine());
  for (auto* m : {&x, &w, &b, &y, &r}) std::memset(m->get_data_handle(), 0, m->get_desc().get_size());
  Arguments arguments{{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_BIAS, b}, {DNNL_ARG_DST, y}};
  if (residual) arguments.emplace(epilogue.residual_argument(), r);
  dnnl::matmul primitive(d);
  const double seconds = best_seconds([&] { execute(primitive, d.scratchpad_desc(), arguments); });
  const int64_t width = geglu ? out / 2 : out;
  std::vector<Tensor> inputs{random(type, {rows, in}), random(type, {in, out}), random(DType::f32, {out})};
  if (residual) inputs.push_back(random(type, {rows, width}));
  const double kernel =
      run_kernel("Linear", inputs, [&](Attributes& a) { a.set("activation", std::string(activation)); });
  std::printf("linear %-8s %5ld %4ld -> %-5ld %-7s%s bare %6.1f (%s)  kernel %6.1f  ratio %.3f\n", name_of(type), (long)rows,
              (long)in, (long)out, activation, residual ? "+res" : "    ", work / seconds, d.impl_info_str(), work / kernel,
              seconds / kernel);
  std::fflush(stdout);
}

/// The three projections of self-attention: as three layers, as one layer three times as wide, and packed.
void projections(DType type, int64_t rows, int64_t width) {
  const double work = 6.0 * rows * width * width / 1e9;
  Tensor x = random(type, {1, rows, width}), wide = random(type, {width, 3 * width});
  Tensor w[] = {random(type, {width, width}), random(type, {width, width}), random(type, {width, width})};
  const auto none = [](Attributes&) {};
  double apart = 0;
  for (const Tensor& each : w) apart += run_kernel("Linear", {x, each}, none);
  const double whole = run_kernel("Linear", {x, wide}, none), packed = run_kernel("PackedQkv", {x, w[0], w[1], w[2]}, none);
  std::printf("qkv %-8s %5ld %4ld: three layers %6.1f  one wide layer %6.1f  packed %6.1f  ratio to the wide one %.3f\n", name_of(type),
              (long)rows, (long)width, work / apart, work / whole, work / packed, whole / packed);
  std::fflush(stdout);
}

void norm(DType type, int64_t size, int64_t channels) {
  Tensor x = random(type, {2, size, size, channels}), g = random(DType::f32, {channels});
  const double seconds = run_kernel("GroupNorm", {x, g, g}, [](Attributes& a) {
    a.set("groups", 32.0);
    a.set("activation", std::string("silu"));
  });
  std::printf("group norm + silu %-8s %ldx%ld %ld: %.2f ms, %.1f GB/s\n", name_of(type), (long)size, (long)size, (long)channels,
              seconds * 1e3, x.bytes() * 3 / seconds / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  device().register_kernels(Registry::instance());
  const auto wants = [&](const char* what) {
    for (int i = 1; i < argc; ++i)
      if (!std::strcmp(argv[i], what)) return true;
    return argc == 1;
  };
  std::vector<DType> types;
  if (wants("f32")) types.push_back(DType::f32);
  if (wants("bf16")) types.push_back(DType::bf16);
  for (DType type : types) {
    if (wants("conv")) {
      const int64_t shapes[][4] = {{64, 4, 320, 1},    {64, 320, 320, 1},   {64, 640, 320, 1},   {64, 960, 320, 1},
                                   {64, 320, 4, 1},    {64, 320, 320, 2},   {32, 320, 640, 1},   {32, 640, 640, 1},
                                   {32, 960, 640, 1},  {32, 1280, 640, 1},  {32, 1920, 640, 1},  {32, 640, 640, 2},
                                   {16, 640, 1280, 1}, {16, 1280, 1280, 1}, {16, 1920, 1280, 1}, {16, 2560, 1280, 1},
                                   {16, 1280, 1280, 2}, {8, 1280, 1280, 1}, {8, 2560, 1280, 1}};
      for (const auto& shape : shapes) convolution(type, 2, shape[0], shape[1], shape[2], shape[3]);
    }
    if (wants("vae")) {
      const int64_t shapes[][3] = {{64, 512, 512}, {128, 512, 512}, {256, 512, 256}, {256, 256, 256}, {512, 256, 128}, {512, 128, 128}};
      for (const auto& shape : shapes) convolution(type, 1, shape[0], shape[1], shape[2], 1);
    }
    if (wants("linear")) {
      for (int64_t level = 0; level < 3; ++level) {
        const int64_t rows = 8192 >> (2 * level), width = 320 << level;
        linear_layer(type, rows, width, width, "linear", true);
        linear_layer(type, rows, width, 3 * width, "linear", false);
        linear_layer(type, rows, width, 8 * width, "geglu", false);
        linear_layer(type, rows, 4 * width, width, "linear", true);
        linear_layer(type, 154, 768, 2 * width, "linear", false);
      }
      linear_layer(type, 128, 1280, 1280, "linear", true);
      linear_layer(type, 2, 1280, 1280, "silu", false);
    }
    if (wants("small")) {
      const double seconds = run_kernel("Linear", {random(type, {1, 16}), random(type, {16, 16}), random(DType::f32, {16})},
                                        [](Attributes& a) { a.set("activation", std::string("linear")); });
      std::printf("a linear layer of 16 numbers: %.2f us\n", seconds * 1e6);
    }
    if (wants("qkv"))
      for (int64_t level = 0; level < 4; ++level) projections(type, 8192 >> (2 * level), std::min<int64_t>(1280, 320 << level));
    if (wants("norm"))
      for (const auto& shape : {std::make_pair(64, 320), std::make_pair(32, 640), std::make_pair(16, 1280), std::make_pair(64, 960)})
        norm(type, shape.first, shape.second);
  }
}
