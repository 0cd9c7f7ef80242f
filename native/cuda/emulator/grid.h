// A grid of blocks, spread over the cores.
#pragma once
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <tuple>

#include "block.h"

namespace td::cuda::emulator {

/// Threads that live as long as the process and work on one grid at a time.
class Workers {
 public:
  static Workers& instance() {
    static Workers* workers = new Workers;  // outlives every static that may still launch
    return *workers;
  }

  /// Calls work(block) on `count` threads, the caller being one, each with a Block of its own.
  void run(int count, const std::function<void(Block&)>& work) {
    std::lock_guard<std::mutex> one(turn_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(threads_.size()) < count - 1) threads_.emplace_back([this, id = threads_.size()] { serve(id); }).detach();
      work_ = &work;
      wanted_ = busy_ = count - 1;
      ++generation_;
    }
    wake_.notify_all();
    work(own_);
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void serve(size_t id) {
    Block own;
    uint64_t seen = 0;
    for (;;) {
      const std::function<void(Block&)>* work = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
        if (static_cast<int>(id) >= wanted_) continue;
        work = work_;
      }
      (*work)(own);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) idle_.notify_one();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, idle_;
  std::vector<std::thread> threads_;
  const std::function<void(Block&)>* work_ = nullptr;
  int wanted_ = 0, busy_ = 0;
  uint64_t generation_ = 0;
  Block own_;
};

struct Grid {
  dim3 blocks, threads;
  size_t shared = 0;
  /// The threads never meet: no barrier, no shuffle, no shared memory.
  bool independent = false;
};

/// What the driver's launch has no argument for.
inline bool& next_is_independent() {
  static bool independent = false;
  return independent;
}

inline void check_grid(const Grid& grid) {
  const dim3 &g = grid.blocks, &t = grid.threads;
  if (!g.x || !g.y || !g.z || !t.x || !t.y || !t.z) throw Fault("[emulator] a grid or a block without threads");
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) throw Fault("[emulator] a grid holds at most 2^31 - 1, 65535, 65535 blocks");
  if (uint64_t(t.x) * t.y * t.z > 1024 || t.z > 64) throw Fault("[emulator] a block holds at most 1024 threads, 64 of them along z");
  if (grid.shared > 227 * 1024) throw Fault("[emulator] a block holds at most 227 KB of shared memory");
}

inline void prepare_worker(Block& b, const Grid& grid, const std::function<void()>& body) {
  b.grid = grid.blocks;
  b.size = grid.threads;
  b.body = &body;
  b.independent = grid.independent;
  b.shared_bytes = grid.shared;
  b.statics.clear();
  b.static_bytes = 0;
  const size_t bytes = (grid.shared + 1023) / 1024 * 1024 + Block::kStaticBytes + 1024;
  if (b.memory.size() < bytes) b.memory.resize(bytes);
  b.shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(b.memory.data()) + 1023) & ~uintptr_t{1023});
  std::memset(b.shared + (grid.shared + 1023) / 1024 * 1024, 0xff, Block::kStaticBytes);
  b.counts = Counts();
  current_block = &b;
}

/// Runs `body` once for every thread of the grid. Throws Fault at the first defect.
inline void run_grid(const Grid& grid, const std::function<void()>& body) {
  check_grid(grid);
  const uint64_t blocks = uint64_t(grid.blocks.x) * grid.blocks.y * grid.blocks.z;
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  const std::function<void(Block&)> work = [&](Block& b) {
    Block* outer = current_block;
    prepare_worker(b, grid, body);
    try {
      for (uint64_t i; (i = next++) < blocks;) {
        b.index = {unsigned(i % grid.blocks.x), unsigned(i / grid.blocks.x % grid.blocks.y), unsigned(i / grid.blocks.x / grid.blocks.y)};
        run_block(b);
      }
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
      next = blocks;
    }
    current_block = outer;
    std::lock_guard<std::mutex> lock(mutex);
    total().add(b.counts);
  };
  Workers::instance().run(static_cast<int>(std::min<uint64_t>(options().workers, blocks)), work);
  if (error) std::rethrow_exception(error);
}

/// kernel<<<grid>>>(arguments)
template <class... P, class... A>
void run_grid(void (*kernel)(P...), const Grid& grid, A... arguments) {
  const std::tuple<P...> packed(static_cast<P>(arguments)...);
  run_grid(grid, [&] { std::apply(kernel, packed); });
}

}  // namespace td::cuda::emulator
