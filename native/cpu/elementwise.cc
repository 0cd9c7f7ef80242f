#include <cmath>
#include <cstring>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd/loops.h"
#include "cpu/strided.h"

namespace td {
namespace {

using simd::Binary;
using simd::Unary;
constexpr int64_t kTile = 1024;

// --- one operand ---------------------------------------------------------------------------------------------------

template <Unary op>
void unary_kernel(Call& call) {
  const Tensor& x = call.input(0);
  const simd::Loops& loops = simd::loops();
  if (!is_float(x.dtype())) {
    // int32 and bool: the operations that keep integers; the rest is float32 in tfjs-core before it comes here.
    const Tensor numbers = as_type(x, DType::i32);
    if (op == Unary::abs || op == Unary::neg || op == Unary::square || op == Unary::relu || op == Unary::sign) {
      Tensor& y = call.output(DType::i32, x.shape);
      const int32_t* in = numbers.data<int32_t>();
      int32_t* out = y.mutable_data<int32_t>();
      for (int64_t i = 0; i < x.elements(); ++i) {
        const int64_t v = in[i];
        const int64_t r = op == Unary::abs ? std::llabs(v)
                          : op == Unary::neg ? -v
                          : op == Unary::square ? v * v
                          : op == Unary::relu ? std::max<int64_t>(v, 0)
                                              : (v > 0) - (v < 0);
        out[i] = static_cast<int32_t>(r);
      }
      return;
    }
    const Tensor floats = as_type(x, DType::f32);
    float p0 = op == Unary::leaky_relu ? static_cast<float>(call.attributes.number("alpha")) : 0, p1 = 0;
    if (op == Unary::clip) {
      p0 = static_cast<float>(call.attributes.number("clipValueMin"));
      p1 = static_cast<float>(call.attributes.number("clipValueMax"));
    }
    if (op == Unary::step) p0 = static_cast<float>(call.attributes.number("alpha"));
    const bool integral = op == Unary::clip || op == Unary::step || op == Unary::floor || op == Unary::ceil ||
                          op == Unary::round || op == Unary::relu6;
    Tensor result = Tensor::empty(DType::f32, x.shape);
    loops.unary(op, floats.data<float>(), result.mutable_data<float>(), x.elements(), p0, p1);
    call.outputs.push_back(integral ? as_type(result, DType::i32) : result);
    return;
  }
  float p0 = 0, p1 = 0;
  if (op == Unary::clip) {
    p0 = static_cast<float>(call.attributes.number("clipValueMin"));
    p1 = static_cast<float>(call.attributes.number("clipValueMax"));
  } else if (op == Unary::leaky_relu || op == Unary::step) {
    p0 = static_cast<float>(call.attributes.number("alpha"));
  }
  Tensor& y = call.output(x.dtype(), x.shape);
  const DType type = x.dtype();
  const char* in = x.data<char>();
  char* out = y.mutable_data<char>();
  const size_t size = size_of(type);
  parallel_for(x.elements(), kSerial / 2, [&](int64_t begin, int64_t end) {
    if (type == DType::f32) {
      loops.unary(op, reinterpret_cast<const float*>(in) + begin, reinterpret_cast<float*>(out) + begin, end - begin, p0, p1);
      return;
    }
    float tile[kTile];
    for (int64_t at = begin; at < end; at += kTile) {
      const int64_t count = std::min(kTile, end - at);
      loops.to_f32(type, in + at * size, tile, count);
      loops.unary(op, tile, tile, count, p0, p1);
      loops.from_f32(type, tile, out + at * size, count);
    }
  });
}

template <typename Predicate>
void test_numbers(Call& call, Predicate predicate) {
  const Tensor& x = call.input(0);
  const Tensor numbers = as_type(x, DType::f32);
  Tensor& y = call.output(DType::boolean, x.shape);
  const float* in = numbers.data<float>();
  uint8_t* out = y.mutable_data<uint8_t>();
  for (int64_t i = 0; i < x.elements(); ++i) out[i] = predicate(in[i]);
}

void is_nan(Call& call) {
  test_numbers(call, [](float x) { return std::isnan(x); });
}
void is_inf(Call& call) {
  test_numbers(call, [](float x) { return std::isinf(x); });
}
void is_finite(Call& call) {
  test_numbers(call, [](float x) { return std::isfinite(x); });
}

void logical_not(Call& call) {
  const Tensor x = as_type(call.input(0), DType::boolean);
  Tensor& y = call.output(DType::boolean, x.shape);
  for (int64_t i = 0; i < x.elements(); ++i) y.mutable_data<uint8_t>()[i] = !x.data<uint8_t>()[i];
}

// --- two operands --------------------------------------------------------------------------------------------------

/// Calls piece(operand offsets, result offset, count) for stretches of the result along which operands have fixed strides.
template <typename Piece>
void for_stretches(const BroadcastPlan& plan, int64_t longest, const Piece& piece) {
  const int64_t inner = plan.inner(), outer = plan.outer();
  const int64_t per_row = (inner + longest - 1) / longest;
  const int64_t tiles = outer * per_row;
  const int64_t typical = std::min(inner, longest);
  parallel_for(tiles, std::max<int64_t>(1, kSerial / std::max<int64_t>(1, typical)), [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile / per_row, at = tile % per_row * longest;
      int64_t offsets[BroadcastPlan::kOperands];
      for (int k = 0; k < BroadcastPlan::kOperands; ++k) offsets[k] = plan.offset(k, row) + at * plan.inner_stride(k);
      piece(offsets, row * inner + at, std::min(longest, inner - at));
    }
  });
}

/// Contiguous float32 numbers of an operand: a pointer into it where that is possible, else a copy in `tile`.
const float* load(DType type, const char* data, int64_t offset, int64_t stride, int64_t count, float* tile) {
  const simd::Loops& loops = simd::loops();
  const char* from = data + offset * size_of(type);
  if (stride == 1) {
    if (type == DType::f32) return reinterpret_cast<const float*>(from);
    loops.to_f32(type, from, tile, count);
  } else if (stride == 0) {
    float value;
    loops.to_f32(type, from, &value, 1);
    std::fill(tile, tile + count, value);
  } else {
    for (int64_t i = 0; i < count; ++i) loops.to_f32(type, from + i * stride * size_of(type), tile + i, 1);
  }
  return tile;
}

int32_t integer_binary(Binary op, int32_t a, int32_t b) {
  const int64_t x = a, y = b;
  switch (op) {
    case Binary::add:
      return static_cast<int32_t>(x + y);
    case Binary::sub:
      return static_cast<int32_t>(x - y);
    case Binary::mul:
      return static_cast<int32_t>(x * y);
    case Binary::max:
      return std::max(a, b);
    case Binary::min:
      return std::min(a, b);
    case Binary::squared_difference:
      return static_cast<int32_t>((x - y) * (x - y));
    case Binary::div:
      return y == 0 ? 0 : static_cast<int32_t>(x / y);
    case Binary::floor_div:
      return y == 0 ? 0 : static_cast<int32_t>(x / y - (x % y != 0 && (x < 0) != (y < 0)));
    case Binary::mod:
      return y == 0 ? 0 : static_cast<int32_t>(x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0));
    case Binary::prelu:
      return static_cast<int32_t>(x < 0 ? x * y : x);
    case Binary::pow: {
      const double value = std::pow(static_cast<double>(a), static_cast<double>(b));
      if (!(std::fabs(value) < 9.2e18)) return 0;
      return static_cast<int32_t>(static_cast<int64_t>(value));
    }
    default:
      return 0;
  }
}

template <Binary op>
void binary_kernel(Call& call) {
  const Tensor &a = call.input(0), &b = call.input(1);
  const Shape shape = broadcast_shape(a.shape, b.shape);
  const BroadcastPlan plan = plan_broadcast(shape, {&a.shape, &b.shape});
  if (shape.elements() == 0) {
    call.output(is_float(a.dtype()) ? promote(a, b) : DType::i32, shape);
    return;
  }
  if (!is_float(a.dtype()) && !is_float(b.dtype())) {
    const Tensor left = as_type(a, DType::i32), right = as_type(b, DType::i32);
    const int32_t *x = left.data<int32_t>(), *y = right.data<int32_t>();
    int32_t* out = call.output(DType::i32, shape).mutable_data<int32_t>();
    const int64_t sx = plan.inner_stride(0), sy = plan.inner_stride(1);
    for_stretches(plan, kTile, [&](const int64_t* offsets, int64_t at, int64_t count) {
      for (int64_t i = 0; i < count; ++i) out[at + i] = integer_binary(op, x[offsets[0] + i * sx], y[offsets[1] + i * sy]);
    });
    return;
  }
  const Tensor left = is_float(a.dtype()) ? a : as_type(a, DType::f32);
  const Tensor right = is_float(b.dtype()) ? b : as_type(b, DType::f32);
  const DType type = promote(left, right), left_type = left.dtype(), right_type = right.dtype();
  const simd::Loops& loops = simd::loops();
  Tensor& y = call.output(type, shape);
  const char *x0 = left.data<char>(), *x1 = right.data<char>();
  char* out = y.mutable_data<char>();
  const int64_t s0 = plan.inner_stride(0), s1 = plan.inner_stride(1);
  for_stretches(plan, kTile, [&](const int64_t* offsets, int64_t at, int64_t count) {
    float tile0[kTile], tile1[kTile];
    const float* p0 = load(left_type, x0, offsets[0], s0, count, tile0);
    const float* p1 = load(right_type, x1, offsets[1], s1, count, tile1);
    if (type == DType::f32) {
      loops.binary(op, p0, p1, reinterpret_cast<float*>(out) + at, count);
    } else {
      loops.binary(op, p0, p1, tile0, count);
      loops.from_f32(type, tile0, out + at * size_of(type), count);
    }
  });
}

enum class Compare { equal, not_equal, greater, greater_equal, less, less_equal, logical_and, logical_or };

template <Compare op, typename T>
bool compare(T a, T b) {
  switch (op) {
    case Compare::equal:
      return a == b;
    case Compare::not_equal:
      return a != b;
    case Compare::greater:
      return a > b;
    case Compare::greater_equal:
      return a >= b;
    case Compare::less:
      return a < b;
    case Compare::less_equal:
      return a <= b;
    case Compare::logical_and:
      return a != T{} && b != T{};
    default:
      return a != T{} || b != T{};
  }
}

template <Compare op, typename T>
void compare_as(Call& call, DType type) {
  const Tensor a = as_type(call.input(0), type), b = as_type(call.input(1), type);
  const Shape shape = broadcast_shape(a.shape, b.shape);
  const BroadcastPlan plan = plan_broadcast(shape, {&a.shape, &b.shape});
  uint8_t* out = call.output(DType::boolean, shape).mutable_data<uint8_t>();
  if (shape.elements() == 0) return;
  const T *x = a.data<T>(), *y = b.data<T>();
  const int64_t sx = plan.inner_stride(0), sy = plan.inner_stride(1);
  for_stretches(plan, kTile, [&](const int64_t* offsets, int64_t at, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[at + i] = compare<op, T>(x[offsets[0] + i * sx], y[offsets[1] + i * sy]);
  });
}

template <Compare op>
void compare_kernel(Call& call) {
  if (is_float(call.input(0).dtype()) || is_float(call.input(1).dtype()))
    compare_as<op, float>(call, DType::f32);
  else
    compare_as<op, int32_t>(call, DType::i32);
}

// --- several operands ----------------------------------------------------------------------------------------------

void add_n(Call& call) {
  const Tensor& first = call.input(0);
  bool floats = false;
  for (const Tensor& x : call.inputs) {
    require(x && x.shape == first.shape, "expects tensors of one shape");
    floats = floats || is_float(x.dtype());
  }
  const DType type = floats ? DType::f32 : DType::i32;
  DType result = floats ? first.dtype() : DType::i32;
  for (const Tensor& x : call.inputs)
    if (floats && x.dtype() != result) result = DType::f32;
  std::vector<Tensor> terms;
  for (const Tensor& x : call.inputs) terms.push_back(floats && is_float(x.dtype()) ? x : as_type(x, type));
  Tensor& y = call.output(result, first.shape);
  char* out = y.mutable_data<char>();
  for (const Tensor& term : terms) term.raw();
  parallel_for(first.elements(), kSerial / 2, [&](int64_t begin, int64_t end) {
    if (!floats) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t sum = 0;
        for (const Tensor& term : terms) sum += term.data<int32_t>()[i];
        reinterpret_cast<int32_t*>(out)[i] = static_cast<int32_t>(sum);
      }
      return;
    }
    const simd::Loops& loops = simd::loops();
    float sum[kTile], tile[kTile];
    for (int64_t at = begin; at < end; at += kTile) {
      const int64_t count = std::min(kTile, end - at);
      std::fill(sum, sum + count, 0.0f);
      for (const Tensor& term : terms)
        loops.binary(Binary::add, sum, load(term.dtype(), term.data<char>(), at, 1, count, tile), sum, count);
      loops.from_f32(result, sum, out + at * size_of(result), count);
    }
  });
}

template <typename T>
void select_as(const BroadcastPlan& plan, const uint8_t* condition, const void* a, const void* b, void* out) {
  const int64_t sc = plan.inner_stride(0), sa = plan.inner_stride(1), sb = plan.inner_stride(2);
  for_stretches(plan, kTile, [&](const int64_t* offsets, int64_t at, int64_t count) {
    const uint8_t* c = condition + offsets[0];
    const T *x = static_cast<const T*>(a) + offsets[1], *y = static_cast<const T*>(b) + offsets[2];
    T* to = static_cast<T*>(out) + at;
    for (int64_t i = 0; i < count; ++i) to[i] = c[i * sc] ? x[i * sa] : y[i * sb];
  });
}

void select(Call& call) {
  const Tensor condition = as_type(call.input(0), DType::boolean);
  Tensor a = call.input(1), b = call.input(2);
  if (a.dtype() != b.dtype()) {
    const DType type = is_float(a.dtype()) && is_float(b.dtype()) ? promote(a, b)
                       : is_float(a.dtype()) || is_float(b.dtype()) ? DType::f32
                                                                    : DType::i32;
    a = as_type(a, type);
    b = as_type(b, type);
  }
  Shape condition_shape = condition.shape;
  // A vector of conditions picks whole rows of higher-rank operands.
  if (condition_shape.rank == 1 && a.shape.rank > 1 && condition_shape[0] == a.shape[0]) {
    for (int i = 1; i < a.shape.rank; ++i) condition_shape.push(1);
  }
  const Shape shape = broadcast_shape(condition_shape, broadcast_shape(a.shape, b.shape));
  const BroadcastPlan plan = plan_broadcast(shape, {&condition_shape, &a.shape, &b.shape});
  Tensor& y = call.output(a.dtype(), shape);
  if (shape.elements() == 0) return;
  const size_t size = size_of(a.dtype());
  const auto run = size == 4 ? select_as<uint32_t> : size == 2 ? select_as<uint16_t> : select_as<uint8_t>;
  run(plan, condition.data<uint8_t>(), a.raw(), b.raw(), y.mutable_raw());
}

void cast(Call& call) {
  const Tensor& x = call.input(0);
  const std::string name = call.attributes.text("dtype");
  DType type;
  if (name == "float32")
    type = is_float(x.dtype()) ? x.dtype() : DType::f32;
  else if (name == "int32")
    type = DType::i32;
  else if (name == "bool")
    type = DType::boolean;
  else
    fail("cannot cast to ", name);
  call.outputs.push_back(as_type(x, type));
}

void physical_cast(Call& call) {
  const Tensor& x = call.input(0);
  require(is_float(x.dtype()), "expects a float32 tensor");
  const std::string name = call.attributes.text("physical");
  const DType type = name == "float32" ? DType::f32 : name == "bfloat16" ? DType::bf16 : DType::f16;
  require(name == name_of(type), "knows float32, bfloat16 and float16, got ", name);
  call.outputs.push_back(as_type(x, type));
}

}  // namespace

void register_elementwise(Registry& registry) {
  registry.add("Abs", unary_kernel<Unary::abs>);
  registry.add("Neg", unary_kernel<Unary::neg>);
  registry.add("Exp", unary_kernel<Unary::exp>);
  registry.add("Expm1", unary_kernel<Unary::expm1>);
  registry.add("Log", unary_kernel<Unary::log>);
  registry.add("Log1p", unary_kernel<Unary::log1p>);
  registry.add("Sqrt", unary_kernel<Unary::sqrt>);
  registry.add("Rsqrt", unary_kernel<Unary::rsqrt>);
  registry.add("Square", unary_kernel<Unary::square>);
  registry.add("Reciprocal", unary_kernel<Unary::reciprocal>);
  registry.add("Sigmoid", unary_kernel<Unary::sigmoid>);
  registry.add("Tanh", unary_kernel<Unary::tanh>);
  registry.add("Erf", unary_kernel<Unary::erf>);
  registry.add("Relu", unary_kernel<Unary::relu>);
  registry.add("Relu6", unary_kernel<Unary::relu6>);
  registry.add("LeakyRelu", unary_kernel<Unary::leaky_relu>);
  registry.add("Elu", unary_kernel<Unary::elu>);
  registry.add("Selu", unary_kernel<Unary::selu>);
  registry.add("Softplus", unary_kernel<Unary::softplus>);
  registry.add("Sin", unary_kernel<Unary::sin>);
  registry.add("Cos", unary_kernel<Unary::cos>);
  registry.add("Tan", unary_kernel<Unary::tan>);
  registry.add("Floor", unary_kernel<Unary::floor>);
  registry.add("Ceil", unary_kernel<Unary::ceil>);
  registry.add("Round", unary_kernel<Unary::round>);
  registry.add("Sign", unary_kernel<Unary::sign>);
  registry.add("Step", unary_kernel<Unary::step>);
  registry.add("ClipByValue", unary_kernel<Unary::clip>);
  registry.add("Silu", unary_kernel<Unary::silu>);
  registry.add("Gelu", unary_kernel<Unary::gelu>);
  registry.add("QuickGelu", unary_kernel<Unary::quick_gelu>);
  registry.add("IsNan", is_nan);
  registry.add("IsInf", is_inf);
  registry.add("IsFinite", is_finite);
  registry.add("LogicalNot", logical_not);
  registry.add("Add", binary_kernel<Binary::add>);
  registry.add("Sub", binary_kernel<Binary::sub>);
  registry.add("Multiply", binary_kernel<Binary::mul>);
  registry.add("RealDiv", binary_kernel<Binary::div>);
  registry.add("Maximum", binary_kernel<Binary::max>);
  registry.add("Minimum", binary_kernel<Binary::min>);
  registry.add("Pow", binary_kernel<Binary::pow>);
  registry.add("SquaredDifference", binary_kernel<Binary::squared_difference>);
  registry.add("FloorDiv", binary_kernel<Binary::floor_div>);
  registry.add("Mod", binary_kernel<Binary::mod>);
  registry.add("Atan2", binary_kernel<Binary::atan2>);
  registry.add("Prelu", binary_kernel<Binary::prelu>);
  registry.add("Equal", compare_kernel<Compare::equal>);
  registry.add("NotEqual", compare_kernel<Compare::not_equal>);
  registry.add("Greater", compare_kernel<Compare::greater>);
  registry.add("GreaterEqual", compare_kernel<Compare::greater_equal>);
  registry.add("Less", compare_kernel<Compare::less>);
  registry.add("LessEqual", compare_kernel<Compare::less_equal>);
  registry.add("LogicalAnd", compare_kernel<Compare::logical_and>);
  registry.add("LogicalOr", compare_kernel<Compare::logical_or>);
  registry.add("AddN", add_n);
  registry.add("Select", select);
  registry.add("Cast", cast);
  registry.add("PhysicalCast", physical_cast);
}

}  // namespace td
