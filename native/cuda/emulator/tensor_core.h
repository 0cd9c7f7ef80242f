// mma.sync and ldmatrix: the fragments of a warp put together, multiplied, and taken apart again.
// Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k4/k8/k16".
#pragma once
#include "block.h"
#include "numbers.h"

namespace td::cuda::emulator {

enum class Type { f16, bf16, tf32 };

/// Where the numbers of the fragments of m16n8kK lie; `per` numbers in a register.
template <Type T>
struct Fragment {
  static constexpr int per = T == Type::tf32 ? 1 : 2;

  static int a_row(int lane, int r) { return lane / 4 + 8 * (r % 2); }
  static int a_column(int lane, int r, int i) { return lane % 4 * per + i + 4 * per * (r / 2); }
  static int b_row(int lane, int r, int i) { return lane % 4 * per + i + 4 * per * r; }
  static int b_column(int lane) { return lane / 4; }
  static int c_row(int lane, int i) { return lane / 4 + 8 * (i / 2); }
  static int c_column(int lane, int i) { return lane % 4 * 2 + i % 2; }

  static float number(uint32_t bits, int i) {
    if constexpr (T == Type::tf32) {
      float x;
      std::memcpy(&x, &bits, 4);
      return tf32(x);
    } else if constexpr (T == Type::f16) {
      return half_to_float(bits >> 16 * i);
    } else {
      return bf16_to_float(bits >> 16 * i);
    }
  }
};

struct MmaOperand {
  float* c;
  const uint32_t *a, *b;
};

template <Type T, int K>
struct MmaTile {
  using F = Fragment<T>;
  static constexpr int registers = K / (4 * F::per);  // along k
  alignas(64) float a[16][K], b[K][8], c[16][8];

  void gather(int lane, const MmaOperand& o) {
    for (int r = 0; r < 2 * registers; ++r) {
      for (int i = 0; i < F::per; ++i) a[F::a_row(lane, r)][F::a_column(lane, r, i)] = F::number(o.a[r], i);
    }
    for (int r = 0; r < registers; ++r) {
      for (int i = 0; i < F::per; ++i) b[F::b_row(lane, r, i)][F::b_column(lane)] = F::number(o.b[r], i);
    }
    for (int i = 0; i < 4; ++i) c[F::c_row(lane, i)][F::c_column(lane, i)] = o.c[i];
  }
  void multiply() {
    if (options().truncate) {
      for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) c[m][n] = truncated_dot(a[m], &b[0][n], K, 8, c[m][n]);
      }
      return;
    }
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < K; ++k) {
        for (int n = 0; n < 8; ++n) c[m][n] += a[m][k] * b[k][n];
      }
    }
  }
  void scatter(int lane, float* to) const {
    for (int i = 0; i < 4; ++i) to[i] = c[F::c_row(lane, i)][F::c_column(lane, i)];
  }
};

/// C += A B for a tile of 16 x 8; K is 8 or 16 for 16-bit types, 4 or 8 for tf32.
template <Type T, int K>
void mma(float* c, const uint32_t* a, const uint32_t* b) {
  MmaOperand own{c, a, b};
  meet(0xffffffffu, Instruction::mma, &own, [](void** lanes) {
    MmaTile<T, K> tile;
    for (int lane = 0; lane < 32; ++lane) tile.gather(lane, *static_cast<MmaOperand*>(lanes[lane]));
    tile.multiply();
    for (int lane = 0; lane < 32; ++lane) tile.scatter(lane, static_cast<MmaOperand*>(lanes[lane])->c);
    ++block().counts.mma;
    block().counts.mma_flop += 2 * 16 * 8 * K;
  });
}

struct MatrixOperand {
  const void* row;
  uint32_t* out;
};

inline const char* matrix_row(void* operand) {
  const Block& b = block();
  const char* at = static_cast<const char*>(static_cast<MatrixOperand*>(operand)->row);
  if (at < b.shared || at + 16 > b.shared + b.shared_bytes) die("ldmatrix reads outside of shared memory");
  if ((at - b.shared) % 16) die("ldmatrix needs rows aligned to 16 bytes");
  return at;
}

/// ldmatrix.xN: lanes 8i..8i+7 name the rows of matrix i. Counts how many rows of a matrix share banks.
template <int N, bool Transposed>
void ldmatrix(uint32_t* out, const void* row) {
  MatrixOperand own{row, out};
  meet(0xffffffffu, Instruction::ldmatrix, &own, [](void** lanes) {
    Block& b = block();
    for (int i = 0; i < N; ++i) {
      uint16_t m[8][8];
      int used[8] = {}, worst = 1;
      for (int r = 0; r < 8; ++r) {
        const char* at = matrix_row(lanes[8 * i + r]);
        std::memcpy(m[r], at, 16);
        worst = std::max(worst, ++used[(at - b.shared) / 16 % 8]);
      }
      ++b.counts.ldmatrix_phases;
      b.counts.ldmatrix_wavefronts += worst;
      for (int lane = 0; lane < 32; ++lane) {
        const int r = lane / 4, c = lane % 4 * 2;
        const uint32_t low = Transposed ? m[c][r] : m[r][c], high = Transposed ? m[c + 1][r] : m[r][c + 1];
        static_cast<MatrixOperand*>(lanes[lane])->out[i] = low | high << 16;
      }
    }
    ++b.counts.ldmatrix;
  });
}

}  // namespace td::cuda::emulator
