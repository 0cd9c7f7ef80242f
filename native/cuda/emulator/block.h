// One block of CUDA threads on one core of the CPU. Threads are fibers; warp instructions are rendezvous of the lanes of a mask.
// What the emulator finds and a GPU may hide: lanes that meet in different instructions, barriers that never open, dependence
// on the order of warps, shared memory read before it was written, asynchronous copies read too early or overwritten too soon.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace td::cuda::emulator {

/// What a kernel does that no GPU promises to survive.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// When cp.async and wgmma read and write: at issue, or only in the wait. Both are allowed; a right kernel cannot tell.
enum class Copies { early, late };
enum class Order { forward, backward, random };

struct Options {
  Copies copies = Copies::late;
  Order order = Order::forward;
  unsigned seed = 1;
  /// Sums of mma are cut off as the tensor cores do it (pessimistic: 24 bits below the largest term).
  bool truncate = false;
  int workers = 2;
};
inline Options& options() {
  static Options options;
  return options;
}

struct Counts {
  uint64_t blocks = 0, mma = 0, mma_flop = 0, ldmatrix = 0, ldmatrix_phases = 0, ldmatrix_wavefronts = 0, copies = 0, copy_bytes = 0,
           shuffles = 0, barriers = 0, exp2 = 0;

  void add(const Counts& other) {
    const uint64_t* from = &other.blocks;
    uint64_t* to = &blocks;
    for (size_t i = 0; i < sizeof(Counts) / sizeof(uint64_t); ++i) to[i] += from[i];
  }
};
/// Of all grids since the last reset.
inline Counts& total() {
  static Counts counts;
  return counts;
}

enum class Instruction { none, syncwarp, shuffle, ballot, ldmatrix, mma, wgmma };
inline const char* name_of(Instruction instruction) {
  static const char* names[] = {"-", "syncwarp", "shuffle", "ballot", "ldmatrix", "mma", "wgmma"};
  return names[static_cast<int>(instruction)];
}

struct Copy {
  void* to;
  const void* from;
  int bytes, valid;
};

struct Lane {
  void* stack = nullptr;
  uint3 index{};
  int id = 0, lane = 0;
  bool done = false;
  /// Blocked until *wait differs from wait_value.
  const unsigned* wait = nullptr;
  unsigned wait_value = 0;
  void* operand = nullptr;
  /// Asynchronous copies: committed groups, oldest first, and those not yet committed.
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
  /// wgmma that have not been waited for: committed groups and open ones.
  std::vector<std::vector<std::function<void()>>> product_groups;
  std::vector<std::function<void()>> products;
};

struct Meeting {
  unsigned mask = 0, arrived = 0, generation = 0;
  Instruction instruction = Instruction::none;
};
struct Warp {
  Meeting meetings[8];
};
struct Barrier {
  unsigned arrived = 0, expected = 0, generation = 0;
};

struct Block {
  static constexpr int kBarriers = 16;
  static constexpr size_t kStaticBytes = 48 << 10;

  dim3 grid, size;
  uint3 index{};
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  Barrier barriers[kBarriers];
  /// Dynamic shared memory, then what TD_SHARED declares.
  std::vector<char> memory;
  char* shared = nullptr;
  size_t shared_bytes = 0;
  std::vector<std::pair<const void*, size_t>> statics;
  size_t static_bytes = 0;
  void* scheduler = nullptr;
  Lane* current = nullptr;
  const std::function<void()>* body = nullptr;
  /// Threads run one after the other without stacks of their own; they may not meet.
  bool independent = false;
  int alive = 0;
  /// Completed phases of mbarriers.
  unsigned phases = 0;
  std::string fault;
  FiberStacks stacks;
  Counts counts;
};

inline thread_local Block* current_block = nullptr;
inline Block& block() { return *current_block; }
inline Lane& self() { return *current_block->current; }

[[noreturn]] inline void die(const std::string& what) {
  const Block& b = block();
  const auto text = [](const uint3& i) { return std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z); };
  throw Fault("[emulator] " + what + " (block " + text(b.index) + (b.current ? ", thread " + std::to_string(b.current->id) : "") + ")");
}

inline void yield() { td_fiber_switch(&self().stack, block().scheduler); }

inline void wait_for(const unsigned* generation) {
  Lane& lane = self();
  lane.wait_value = *generation;
  lane.wait = generation;
  yield();
}

inline void forbid_alone(const char* what) {
  if (block().independent) die(std::string("threads of a kernel that is launched as independent meet in ") + what);
}

inline Meeting& meeting_of(Warp& warp, unsigned mask) {
  for (Meeting& meeting : warp.meetings) {
    if (meeting.arrived && meeting.mask == mask) return meeting;
  }
  for (Meeting& meeting : warp.meetings) {
    if (!meeting.arrived) return meeting;
  }
  die("too many diverged meetings of one warp");
}

/// The lanes of `mask` meet; the last one runs `all` over the operands of every lane.
template <class F>
void meet(unsigned mask, Instruction instruction, void* operand, const F& all) {
  forbid_alone(name_of(instruction));
  Lane& lane = self();
  if (!(mask >> lane.lane & 1)) die(std::string("a lane is not in the mask that it names: ") + name_of(instruction));
  Meeting& meeting = meeting_of(block().warps[lane.id / 32], mask);
  if (meeting.arrived && meeting.instruction != instruction) {
    die(std::string("lanes of one warp meet in different instructions: ") + name_of(meeting.instruction) + " and " + name_of(instruction));
  }
  meeting.mask = mask;
  meeting.instruction = instruction;
  meeting.arrived |= 1u << lane.lane;
  lane.operand = operand;
  if (meeting.arrived != mask) return wait_for(&meeting.generation);
  const Lane* first = &block().lanes[lane.id / 32 * 32];
  void* operands[32];
  for (int i = 0; i < 32; ++i) operands[i] = mask >> i & 1 ? first[i].operand : nullptr;
  all(operands);
  meeting.arrived = 0;
  ++meeting.generation;
}

/// Barrier `id` of the block for `threads` threads, 0 for all that are left.
inline void barrier(int id, int threads) {
  forbid_alone("a barrier");
  Block& b = block();
  Barrier& barrier = b.barriers[id];
  ++b.counts.barriers;
  if (barrier.arrived && static_cast<int>(barrier.expected) != threads) die("threads meet at a barrier with different counts");
  barrier.expected = threads;
  if (static_cast<int>(++barrier.arrived) < (threads ? threads : b.alive)) return wait_for(&barrier.generation);
  barrier.arrived = 0;
  ++barrier.generation;
}

/// Arrives at a barrier that others wait at.
inline void barrier_arrive(int id, int threads) {
  Barrier& barrier = block().barriers[id];
  if (barrier.arrived && static_cast<int>(barrier.expected) != threads) die("threads meet at a barrier with different counts");
  barrier.expected = threads;
  if (static_cast<int>(++barrier.arrived) < threads) return;
  barrier.arrived = 0;
  ++barrier.generation;
}

/// Shared memory of a fixed size; `key` names the declaration.
inline void* static_shared(const void* key, size_t bytes) {
  Block& b = block();
  for (const auto& entry : b.statics) {
    if (entry.first == key) return b.shared + entry.second;
  }
  const size_t offset = (b.shared_bytes + 1023) / 1024 * 1024 + b.static_bytes;
  if (b.static_bytes + bytes > Block::kStaticBytes) die("more than 48 KB of static shared memory");
  b.static_bytes += (bytes + 15) / 16 * 16;
  b.statics.emplace_back(key, offset);
  return b.shared + offset;
}

inline void finish_lane() {
  Lane& lane = self();
  for (const auto& group : lane.groups) {
    if (!group.empty()) die("a thread ends with asynchronous copies in flight");
  }
  if (!lane.open.empty()) die("a thread ends with uncommitted asynchronous copies");
  if (!lane.products.empty() || !lane.product_groups.empty()) die("a thread ends with wgmma in flight");
}

inline void enter_fiber() {
  Block& b = block();
  try {
    (*b.body)();
    finish_lane();
  } catch (const std::exception& error) {
    b.fault = error.what();
  }
  self().done = true;
  --b.alive;
  Barrier& all = b.barriers[0];  // __syncthreads waits for the threads that are left
  if (all.arrived && all.expected == 0 && static_cast<int>(all.arrived) == b.alive) {
    all.arrived = 0;
    ++all.generation;
  }
  yield();
}

inline void prepare_block(Block& b) {
  const int threads = static_cast<int>(b.size.x * b.size.y * b.size.z);
  b.lanes.assign(b.independent ? 1 : threads, Lane());
  b.warps.assign((threads + 31) / 32, Warp());
  for (Barrier& barrier : b.barriers) barrier = Barrier();
  std::memset(b.shared, 0xff, b.shared_bytes);  // NaN in every float type
  if (b.static_bytes) std::memset(b.shared + (b.shared_bytes + 1023) / 1024 * 1024, 0xff, b.static_bytes);
  b.statics.clear();
  b.static_bytes = 0;
  b.alive = threads;
  b.fault.clear();
  ++b.counts.blocks;
}

inline uint3 thread_index(const dim3& size, int i) { return {i % size.x, i / size.x % size.y, i / (size.x * size.y)}; }

inline void run_independent(Block& b) {
  Lane& lane = b.lanes[0];
  b.current = &lane;
  for (int i = 0; i < b.alive; ++i) {
    lane.id = i;
    lane.lane = i % 32;
    lane.index = thread_index(b.size, i);
    (*b.body)();
  }
}

/// Lets the lanes of one warp run until all are stuck; in random order it may be left earlier. True when one moved.
inline bool run_warp(Block& b, int warp, std::mt19937& random) {
  const int first = warp * 32, last = std::min<int>(first + 32, b.lanes.size());
  bool progress = false;
  for (bool moved = true; moved;) {
    moved = false;
    for (int i = first; i < last; ++i) {
      Lane& lane = b.lanes[i];
      if (lane.done || (lane.wait && *lane.wait == lane.wait_value)) continue;
      lane.wait = nullptr;
      b.current = &lane;
      td_fiber_switch(&b.scheduler, lane.stack);
      if (!b.fault.empty()) throw Fault(b.fault);
      moved = progress = true;
    }
    if (options().order == Order::random && random() % 64 == 0) break;
  }
  return progress;
}

inline void run_fibers(Block& b) {
  b.stacks.reserve(b.alive);
  for (int i = 0; i < static_cast<int>(b.lanes.size()); ++i) {
    Lane& lane = b.lanes[i];
    lane.id = i;
    lane.lane = i % 32;
    lane.index = thread_index(b.size, i);
    lane.stack = b.stacks.prepare(i, &enter_fiber);
  }
  std::mt19937 random(options().seed + b.index.x * 7919 + b.index.y * 104729 + b.index.z);
  std::vector<int> order(b.warps.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = options().order == Order::backward ? order.size() - 1 - i : i;
  while (b.alive > 0) {
    bool progress = false;
    if (options().order == Order::random) std::shuffle(order.begin(), order.end(), random);
    for (int warp : order) progress |= run_warp(b, warp, random);
    if (!progress) {
      b.current = nullptr;
      die("the block is stuck: threads wait for others that never arrive");
    }
  }
}

inline void run_block(Block& b) {
  prepare_block(b);
  if (b.independent) {
    run_independent(b);
  } else {
    run_fibers(b);
  }
}

}  // namespace td::cuda::emulator
