// Products of matrices that lie in memory row by row, each as it is or transposed.
#pragma once
#include "product_float32.cuh"

namespace td::cuda {

/// Rows lie `stride` numbers apart, the matrices of a batch `batch` numbers (0: the same for all).
struct Matrix {
  const void* data;
  int64_t stride, batch;
  bool aligned;  // all rows begin at multiples of 16 bytes
};

struct GemmArguments {
  Matrix a, b;
  /// Three matrices B of equal size instead of b.data, as for queries, keys and values: the batch counts them, b.batch is 0.
  const void* b_parts[3];
  Offsets bias_parts[3];
  bool parts;
  int rows, depth;
  int64_t out_batch;  // distance of results in numbers
  Epilogue epilogue;
  Partial partial;
};

/// Lines are rows of A or columns of B. InnerK: the numbers of a line lie side by side, else those of a step along k do.
template <class T, bool InnerK, int Group>
struct MatrixOperand {
  static constexpr bool kInnerK = InnerK;
  static constexpr int kVector = 16 / sizeof(typename Stored<T>::type);
  struct Line {
    const typename Stored<T>::type* from;
    int valid;
  };
  using Step = int;  // the first k

  const typename Stored<T>::type* data;
  int64_t stride;
  int lines, depth;
  bool aligned;
  int half;  // of B with geglu, where columns of values and gates come in turn: how many there are of each; else 0

  __device__ __forceinline__ Line line(int i) const {
    int end = lines;
    if (half) {
      const int value = i / Group * (Group / 2) + i % (Group / 2);
      const bool gate = i % Group >= Group / 2;
      if (value >= half) return {data, 0};
      i = gate ? half + value : value;
      end = gate ? lines : half;
    }
    if (i >= end) return {data, 0};
    return {data + (InnerK ? i * stride : i), min(end - i, kVector)};
  }
  __device__ __forceinline__ Span at(const Line& line, int first, int k) const {
    const int left = depth - first - k;
    if (left <= 0 || line.valid == 0) return {data, 0};
    if (InnerK) return {line.from + first + k, min(left, kVector)};
    return {line.from + (first + k) * stride, line.valid};
  }
};

/// A is [rows, depth] or, transposed, [depth, rows]; B [depth, columns] or, transposed, [columns, depth].
template <class T, bool TransposedA, bool TransposedB, int Group>
struct Gemm {
  using Arguments = GemmArguments;
  using A = MatrixOperand<T, !TransposedA, Group>;
  using B = MatrixOperand<T, TransposedB, Group>;
  using Number = typename Stored<T>::type;
  A a;
  B b;
  Epilogue epilogue;
  int rows, depth;

  __device__ __forceinline__ Gemm(const GemmArguments& p, int batch) : epilogue(p.epilogue), rows(p.rows), depth(p.depth) {
    const void* right = p.parts ? batch == 0 ? p.b_parts[0] : batch == 1 ? p.b_parts[1] : p.b_parts[2] : p.b.data;
    if (p.parts) epilogue.bias = batch == 0 ? p.bias_parts[0] : batch == 1 ? p.bias_parts[1] : p.bias_parts[2];
    epilogue.out = static_cast<Number*>(epilogue.out) + batch * p.out_batch;
    if (epilogue.residual) epilogue.residual = static_cast<const Number*>(epilogue.residual) + batch * p.out_batch;
    a = {static_cast<const Number*>(p.a.data) + batch * p.a.batch, p.a.stride, rows, depth, p.a.aligned, 0};
    b = {static_cast<const Number*>(right) + batch * p.b.batch, p.b.stride, product_columns(epilogue), depth, p.b.aligned,
         epilogue.activation == Activation::geglu ? epilogue.columns : 0};
  }
  __device__ __forceinline__ int steps(int size) const { return (depth + size - 1) / size; }
  __device__ __forceinline__ int step(int i, int size) const { return i * size; }
  __device__ __forceinline__ int64_t row(int m) const { return m < rows ? m : -1; }
};

}  // namespace td::cuda
