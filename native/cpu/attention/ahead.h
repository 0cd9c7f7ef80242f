// Asks for memory before it is needed, a few cache lines at a time: Zen 4 drops what a burst asks for beyond its queues.
#pragma once

#include <cstdint>

#include "cpu/isa.h"

namespace td::attention {

// Always inline: GCC takes a function that does nothing but prefetch for one without effect, and drops the calls.
class Ahead {
 public:
  TD_INLINE void clear() { count_ = 0; }

  // `rows` rows of `bytes` bytes each, `stride` bytes apart. At most kSpans times.
  TD_INLINE void add(const void* data, int64_t stride, int64_t rows, int64_t bytes) {
    if (rows > 0 && bytes > 0) spans_[count_++] = {reinterpret_cast<uintptr_t>(data), stride, rows, static_cast<uintptr_t>(bytes)};
  }

  // Divides everything added among `calls` calls of some().
  TD_INLINE void divide(int64_t calls) {
    int64_t lines = 0;
    for (int i = 0; i < count_; ++i) lines += spans_[i].rows * static_cast<int64_t>(spans_[i].bytes / kLine + 1);
    share_ = lines / calls + 1;
    span_ = 0;
    row_ = 0;
    if (count_ > 0) begin_row();
  }

  TD_INLINE void some() {
    for (int64_t i = 0; i < share_ && span_ < count_; ++i) {
      __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, 2);
      at_ += kLine;
      if (at_ < end_) continue;
      if (++row_ == spans_[span_].rows) {
        row_ = 0;
        if (++span_ == count_) return;
      }
      begin_row();
    }
  }

 private:
  static constexpr uintptr_t kLine = 64;
  static constexpr int kSpans = 3;

  struct Span {
    uintptr_t data;
    int64_t stride, rows;
    uintptr_t bytes;
  };

  TD_INLINE void begin_row() {
    const Span& span = spans_[span_];
    const uintptr_t begin = span.data + static_cast<uintptr_t>(row_ * span.stride);
    at_ = begin / kLine * kLine;
    end_ = begin + span.bytes;
  }

  Span spans_[kSpans];
  int count_ = 0, span_ = 0;
  int64_t row_ = 0, share_ = 0;
  uintptr_t at_ = 0, end_ = 0;
};

}  // namespace td::attention
