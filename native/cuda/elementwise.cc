#include "cuda/kernels/elementwise.cuh"

#include <type_traits>

#include "cuda/dispatch.h"
#include "cuda/kernels.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"elementwise.cuh"};

Grid numbers(int64_t n) { return {dim3(blocks_for(n, 256 * kPerThread)), dim3(256), 0, true}; }

struct UnaryParameters {
  float p0 = 0, p1 = 0;

  UnaryParameters(Unary op, const Attributes& attributes) {
    if (op == Unary::clip) {
      p0 = static_cast<float>(attributes.number("clipValueMin"));
      p1 = static_cast<float>(attributes.number("clipValueMax"));
    } else if (op == Unary::leaky_relu || op == Unary::step) {
      p0 = static_cast<float>(attributes.number("alpha"));
    }
  }
};

Tensor unary_floats(Unary op, const Tensor& x, const UnaryParameters& p) {
  Tensor y = Tensor::empty(x.dtype(), x.shape);
  if (x.elements() == 0) return y;
  by_float(x.dtype(), [&](auto tag) {
    launch<kModule, unary_kernel<decltype(tag)>>(numbers(x.elements()), op, x.data<Number<decltype(tag)>>(),
                                                 y.mutable_data<Number<decltype(tag)>>(), x.elements(), p.p0, p.p1);
  });
  return y;
}

/// int32 and bool: the operations that keep integers; the rest goes through float32.
Tensor unary_integers(Unary op, const Tensor& x, const UnaryParameters& p) {
  const Tensor integers = as_type(x, DType::i32);
  if (op == Unary::abs || op == Unary::neg || op == Unary::square || op == Unary::relu || op == Unary::sign) {
    Tensor y = Tensor::empty(DType::i32, x.shape);
    if (x.elements()) {
      launch<kModule, unary_integer_kernel>(numbers(x.elements()), op, integers.data<int32_t>(), y.mutable_data<int32_t>(), x.elements());
    }
    return y;
  }
  const Tensor y = unary_floats(op, as_type(x, DType::f32), p);
  const bool integral =
      op == Unary::clip || op == Unary::step || op == Unary::floor || op == Unary::ceil || op == Unary::round || op == Unary::relu6;
  return integral ? as_type(y, DType::i32) : y;
}

template <Unary op>
void unary(Call& call) {
  const Tensor& x = call.input(0);
  const UnaryParameters p(op, call.attributes);
  call.outputs.push_back(is_float(x.dtype()) ? unary_floats(op, x, p) : unary_integers(op, x, p));
}

template <Test op>
void test_numbers(Call& call) {
  const Tensor x = as_type(call.input(0), DType::f32);
  Tensor& y = call.output(DType::boolean, x.shape);
  if (x.elements()) launch<kModule, test_kernel>(numbers(x.elements()), op, x.data<float>(), y.mutable_data<uint8_t>(), x.elements());
}

void logical_not(Call& call) {
  const Tensor x = as_type(call.input(0), DType::boolean);
  Tensor& y = call.output(DType::boolean, x.shape);
  if (x.elements()) launch<kModule, logical_not_kernel>(numbers(x.elements()), x.data<uint8_t>(), y.mutable_data<uint8_t>(), x.elements());
}

/// Two operands with the shape of their result.
struct Pair {
  Shape shape;
  Walk<2> walk;

  Pair(const Tensor& a, const Tensor& b)
      : shape(broadcast_shape(a.shape, b.shape)), walk(walk_of<2>(plan_broadcast(shape, {&a.shape, &b.shape}))) {}
};

void binary_integers(Binary op, Call& call, const Pair& pair) {
  const Tensor a = as_type(call.input(0), DType::i32), b = as_type(call.input(1), DType::i32);
  Tensor& y = call.output(DType::i32, pair.shape);
  if (y.elements() == 0) return;
  launch<kModule, binary_integer_kernel>(numbers(y.elements()), op, a.data<int32_t>(), b.data<int32_t>(), y.mutable_data<int32_t>(),
                                         y.elements(), pair.walk);
}

void binary_floats(Binary op, Call& call, const Pair& pair) {
  const auto floats = [](const Tensor& x) { return is_float(x.dtype()) ? x : as_type(x, DType::f32); };
  Tensor a = floats(call.input(0)), b = floats(call.input(1));
  const DType type = promote(a, b);
  a = as_type(a, type);
  b = as_type(b, type);
  Tensor& y = call.output(type, pair.shape);
  if (y.elements() == 0) return;
  by_float(type, [&](auto tag) {
    using N = Number<decltype(tag)>;
    launch<kModule, binary_kernel<decltype(tag)>>(numbers(y.elements()), op, a.data<N>(), b.data<N>(), y.mutable_data<N>(), y.elements(), pair.walk);
  });
}

template <Binary op>
void binary(Call& call) {
  const Tensor &a = call.input(0), &b = call.input(1);
  const Pair pair(a, b);
  if (is_float(a.dtype()) || is_float(b.dtype())) {
    binary_floats(op, call, pair);
  } else {
    binary_integers(op, call, pair);
  }
}

template <class T>
void compare_as(Compare op, Call& call, DType type) {
  const Tensor a = as_type(call.input(0), type), b = as_type(call.input(1), type);
  const Pair pair(a, b);
  Tensor& y = call.output(DType::boolean, pair.shape);
  if (y.elements() == 0) return;
  launch<kModule, compare_kernel<T>>(numbers(y.elements()), op, a.data<T>(), b.data<T>(), y.mutable_data<uint8_t>(), y.elements(), pair.walk);
}

template <Compare op>
void comparison(Call& call) {
  if (is_float(call.input(0).dtype()) || is_float(call.input(1).dtype())) {
    compare_as<float>(op, call, DType::f32);
  } else {
    compare_as<int32_t>(op, call, DType::i32);
  }
}

/// The sum of at most kTerms tensors of one type, all of the shape of the first.
Tensor add_terms(const std::vector<Tensor>& terms) {
  Terms pointers{{}, static_cast<int>(terms.size())};
  for (size_t i = 0; i < terms.size(); ++i) pointers.data[i] = terms[i].raw();
  Tensor y = Tensor::empty(terms[0].dtype(), terms[0].shape);
  const int64_t n = y.elements();
  if (n == 0) return y;
  if (y.dtype() == DType::i32) {
    launch<kModule, add_n_integer_kernel>(numbers(n), pointers, y.mutable_data<int32_t>(), n);
    return y;
  }
  by_float(y.dtype(), [&](auto tag) {
    launch<kModule, add_n_kernel<decltype(tag)>>(numbers(n), pointers, y.mutable_data<Number<decltype(tag)>>(), n);
  });
  return y;
}

void add_n(Call& call) {
  const Tensor& first = call.input(0);
  bool floats = false, mixed = false;
  for (const Tensor& x : call.inputs) {
    require(x && x.shape == first.shape, "expects tensors of one shape");
    floats = floats || is_float(x.dtype());
    mixed = mixed || x.dtype() != first.dtype();
  }
  const DType result = !floats ? DType::i32 : mixed ? DType::f32 : first.dtype();
  // More than kTerms are summed in float32 from group to group, so that the result is rounded once.
  const DType type = floats && call.inputs.size() > kTerms ? DType::f32 : result;
  std::vector<Tensor> terms;
  for (const Tensor& x : call.inputs) {
    if (terms.size() == kTerms) terms = {add_terms(terms)};
    terms.push_back(as_type(x, type));
  }
  call.outputs.push_back(as_type(add_terms(terms), result));
}

void select(Call& call) {
  const Tensor condition = as_type(call.input(0), DType::boolean);
  Tensor a = call.input(1), b = call.input(2);
  if (a.dtype() != b.dtype()) {
    const bool both = is_float(a.dtype()) && is_float(b.dtype()), any = is_float(a.dtype()) || is_float(b.dtype());
    const DType type = both ? promote(a, b) : any ? DType::f32 : DType::i32;
    a = as_type(a, type);
    b = as_type(b, type);
  }
  Shape condition_shape = condition.shape;
  // A vector of conditions picks whole rows of higher-rank operands.
  if (condition_shape.rank == 1 && a.shape.rank > 1 && condition_shape[0] == a.shape[0]) {
    for (int i = 1; i < a.shape.rank; ++i) condition_shape.push(1);
  }
  const Shape shape = broadcast_shape(condition_shape, broadcast_shape(a.shape, b.shape));
  const Walk<3> walk = walk_of<3>(plan_broadcast(shape, {&condition_shape, &a.shape, &b.shape}));
  Tensor& y = call.output(a.dtype(), shape);
  if (y.elements() == 0) return;
  by_size(a.dtype(), [&](auto bits) {
    using B = decltype(bits);
    launch<kModule, select_kernel<B>>(numbers(y.elements()), condition.data<uint8_t>(), a.data<B>(), b.data<B>(), y.mutable_data<B>(), y.elements(),
                                      walk);
  });
}

void cast(Call& call) {
  const Tensor& x = call.input(0);
  const std::string name = call.attributes.text("dtype");
  const bool known = name == "float32" || name == "int32" || name == "bool";
  require(known, "cannot cast to ", name);
  const DType floats = is_float(x.dtype()) ? x.dtype() : DType::f32;
  call.outputs.push_back(as_type(x, name == "int32" ? DType::i32 : name == "bool" ? DType::boolean : floats));
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

void convert(DType from_type, const void* from, DType to_type, void* to, int64_t count) {
  if (count == 0) return;
  by_type(from_type, [&](auto from_tag) {
    by_type(to_type, [&](auto to_tag) {
      using From = decltype(from_tag);
      using To = decltype(to_tag);
      if constexpr (std::is_same_v<From, To>) fail("a conversion between equal types");
      else launch<kModule, cast_kernel<From, To>>(numbers(count), static_cast<const Number<From>*>(from), static_cast<Number<To>*>(to), count);
    });
  });
}

Tensor as_type(const Tensor& x, DType type) {
  if (x.dtype() == type) return x;
  Tensor y = Tensor::empty(type, x.shape);
  convert(x.dtype(), x.raw(), type, y.mutable_raw(), x.elements());
  return y;
}

void register_elementwise(Registry& registry) {
  registry.add("Abs", unary<Unary::abs>);
  registry.add("Neg", unary<Unary::neg>);
  registry.add("Exp", unary<Unary::exp>);
  registry.add("Expm1", unary<Unary::expm1>);
  registry.add("Log", unary<Unary::log>);
  registry.add("Log1p", unary<Unary::log1p>);
  registry.add("Sqrt", unary<Unary::sqrt>);
  registry.add("Rsqrt", unary<Unary::rsqrt>);
  registry.add("Square", unary<Unary::square>);
  registry.add("Reciprocal", unary<Unary::reciprocal>);
  registry.add("Sigmoid", unary<Unary::sigmoid>);
  registry.add("Tanh", unary<Unary::tanh>);
  registry.add("Erf", unary<Unary::erf>);
  registry.add("Relu", unary<Unary::relu>);
  registry.add("Relu6", unary<Unary::relu6>);
  registry.add("LeakyRelu", unary<Unary::leaky_relu>);
  registry.add("Elu", unary<Unary::elu>);
  registry.add("Selu", unary<Unary::selu>);
  registry.add("Softplus", unary<Unary::softplus>);
  registry.add("Sin", unary<Unary::sin>);
  registry.add("Cos", unary<Unary::cos>);
  registry.add("Tan", unary<Unary::tan>);
  registry.add("Floor", unary<Unary::floor>);
  registry.add("Ceil", unary<Unary::ceil>);
  registry.add("Round", unary<Unary::round>);
  registry.add("Sign", unary<Unary::sign>);
  registry.add("Step", unary<Unary::step>);
  registry.add("ClipByValue", unary<Unary::clip>);
  registry.add("Silu", unary<Unary::silu>);
  registry.add("Gelu", unary<Unary::gelu>);
  registry.add("QuickGelu", unary<Unary::quick_gelu>);
  registry.add("IsNan", test_numbers<Test::is_nan>);
  registry.add("IsInf", test_numbers<Test::is_inf>);
  registry.add("IsFinite", test_numbers<Test::is_finite>);
  registry.add("LogicalNot", logical_not);
  registry.add("Add", binary<Binary::add>);
  registry.add("Sub", binary<Binary::sub>);
  registry.add("Multiply", binary<Binary::mul>);
  registry.add("RealDiv", binary<Binary::div>);
  registry.add("Maximum", binary<Binary::max>);
  registry.add("Minimum", binary<Binary::min>);
  registry.add("Pow", binary<Binary::pow>);
  registry.add("SquaredDifference", binary<Binary::squared_difference>);
  registry.add("FloorDiv", binary<Binary::floor_div>);
  registry.add("Mod", binary<Binary::mod>);
  registry.add("Atan2", binary<Binary::atan2>);
  registry.add("Prelu", binary<Binary::prelu>);
  registry.add("Equal", comparison<Compare::equal>);
  registry.add("NotEqual", comparison<Compare::not_equal>);
  registry.add("Greater", comparison<Compare::greater>);
  registry.add("GreaterEqual", comparison<Compare::greater_equal>);
  registry.add("Less", comparison<Compare::less>);
  registry.add("LessEqual", comparison<Compare::less_equal>);
  registry.add("LogicalAnd", comparison<Compare::logical_and>);
  registry.add("LogicalOr", comparison<Compare::logical_or>);
  registry.add("AddN", add_n);
  registry.add("Select", select);
  registry.add("Cast", cast);
  registry.add("PhysicalCast", physical_cast);
}

}  // namespace td::cuda
