// Shuffles and votes.
#pragma once
#include "block.h"

namespace td::cuda::emulator {

struct ShuffleOperand {
  uint32_t value;
  int from;
  uint32_t result;
};

template <class T>
T shuffle(unsigned mask, T value, int from) {
  static_assert(sizeof(T) == 4, "32 bits");
  ShuffleOperand own{0, from, 0};
  std::memcpy(&own.value, &value, 4);
  meet(mask, Instruction::shuffle, &own, [mask](void** lanes) {
    for (int i = 0; i < 32; ++i) {
      if (!lanes[i]) continue;
      ShuffleOperand& o = *static_cast<ShuffleOperand*>(lanes[i]);
      if (!(mask >> o.from & 1)) die("a shuffle reads a lane outside of its mask");
      o.result = static_cast<ShuffleOperand*>(lanes[o.from])->value;
    }
    ++block().counts.shuffles;
  });
  T result;
  std::memcpy(&result, &own.result, 4);
  return result;
}

struct BallotOperand {
  bool vote;
  unsigned result;
};

inline unsigned ballot(unsigned mask, bool vote) {
  BallotOperand own{vote, 0};
  meet(mask, Instruction::ballot, &own, [](void** lanes) {
    unsigned all = 0;
    for (int i = 0; i < 32; ++i) {
      if (lanes[i] && static_cast<BallotOperand*>(lanes[i])->vote) all |= 1u << i;
    }
    for (int i = 0; i < 32; ++i) {
      if (lanes[i]) static_cast<BallotOperand*>(lanes[i])->result = all;
    }
  });
  return own.result;
}

}  // namespace td::cuda::emulator
