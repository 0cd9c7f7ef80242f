#include "cpu/strided.h"

#include <cstdlib>
#include <cstring>

#include "cpu/parallel.h"

namespace td {

namespace {

using Axis = CopyAxis;

template <typename T>
void copy_row(const T* from, int64_t from_step, T* to, int64_t to_step, int64_t n) {
  if (from_step == 1 && to_step == 1) {
    std::memcpy(to, from, n * sizeof(T));
  } else if (to_step == 1) {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * from_step];
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * to_step] = from[i * from_step];
  }
}

template <typename T>
void copy_axes(const Axis* axes, int rank, const T* from, T* to) {
  if (rank == 0) {
    *to = *from;
    return;
  }
  const Axis inner = axes[rank - 1];
  int64_t total = inner.dim;
  for (int i = 0; i + 1 < rank; ++i) total *= axes[i].dim;
  // Transposition of a matrix in small squares: when the inner axis jumps in the source and another axis does not.
  int swapped = -1;
  if (inner.from != 1 && rank > 1) {
    for (int i = rank - 2; i >= 0; --i)
      if (axes[i].from == 1 && axes[i].dim >= 4) swapped = i;
  }
  const auto base = [&](int64_t index, int skip, int64_t* f, int64_t* t) {
    *f = 0;
    *t = 0;
    for (int i = rank - 2; i >= 0; --i) {
      if (i == skip) continue;
      const int64_t at = index % axes[i].dim;
      index /= axes[i].dim;
      *f += at * axes[i].from;
      *t += at * axes[i].to;
    }
  };
  if (swapped >= 0) {
    constexpr int64_t kSquare = 16;
    const Axis other = axes[swapped];
    const int64_t strips = (other.dim + kSquare - 1) / kSquare;
    const int64_t matrices = total / inner.dim / other.dim;
    const auto body = [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        int64_t f, t;
        base(item / strips, swapped, &f, &t);
        const int64_t first = item % strips * kSquare, last = std::min(first + kSquare, other.dim);
        for (int64_t column = 0; column < inner.dim; column += kSquare) {
          const int64_t stop = std::min(column + kSquare, inner.dim);
          for (int64_t row = first; row < last; ++row) {
            const T* source = from + f + row + column * inner.from;
            T* target = to + t + row * other.to + column * inner.to;
            for (int64_t i = column; i < stop; ++i, source += inner.from, target += inner.to) *target = *source;
          }
        }
      }
    };
    parallel_for(matrices * strips, std::max<int64_t>(1, kSerial / (inner.dim * kSquare)), body);
    return;
  }
  const int64_t rows = total / inner.dim;
  if (rows == 1) {
    parallel_for(inner.dim, kSerial * 4, [&](int64_t begin, int64_t end) {
      copy_row(from + begin * inner.from, inner.from, to + begin * inner.to, inner.to, end - begin);
    });
    return;
  }
  parallel_for(rows, std::max<int64_t>(1, kSerial / inner.dim), [&](int64_t begin, int64_t end) {
    int64_t index[kMaxRank] = {}, f = 0, t = 0, rest = begin;
    for (int i = rank - 2; i >= 0; --i) {
      index[i] = rest % axes[i].dim;
      rest /= axes[i].dim;
      f += index[i] * axes[i].from;
      t += index[i] * axes[i].to;
    }
    for (int64_t row = begin; row < end; ++row) {
      copy_row(from + f, inner.from, to + t, inner.to, inner.dim);
      for (int i = rank - 2; i >= 0; --i) {
        f += axes[i].from;
        t += axes[i].to;
        if (++index[i] < axes[i].dim) break;
        f -= axes[i].from * axes[i].dim;
        t -= axes[i].to * axes[i].dim;
        index[i] = 0;
      }
    }
  });
}

}  // namespace

void strided_copy(size_t element, const Shape& dims, const void* from, const int64_t* from_strides, void* to,
                  const int64_t* to_strides) {
  if (dims.elements() == 0) return;
  Axis axes[kMaxRank];
  const int rank = simplify_copy(dims, from_strides, to_strides, axes);
  if (element == 4)
    copy_axes(axes, rank, static_cast<const uint32_t*>(from), static_cast<uint32_t*>(to));
  else if (element == 2)
    copy_axes(axes, rank, static_cast<const uint16_t*>(from), static_cast<uint16_t*>(to));
  else
    copy_axes(axes, rank, static_cast<const uint8_t*>(from), static_cast<uint8_t*>(to));
}

}  // namespace td
