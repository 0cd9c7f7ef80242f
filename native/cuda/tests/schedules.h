// Runs something under every schedule that the emulator knows: both extremes of asynchronous copies, three orders of warps.
#pragma once
#include "cuda/emulator/block.h"

namespace td::cuda::test {

template <class F>
void for_each_schedule(const F& run) {
  const emulator::Options before = emulator::options();
  for (emulator::Copies copies : {emulator::Copies::late, emulator::Copies::early}) {
    for (emulator::Order order : {emulator::Order::forward, emulator::Order::backward, emulator::Order::random}) {
      emulator::options().copies = copies;
      emulator::options().order = order;
      run();
    }
  }
  emulator::options() = before;
}

}  // namespace td::cuda::test
