// Fibers: a CUDA thread of the emulator is a stack of its own and fifteen instructions that change from one to another.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

extern "C" void td_fiber_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.weak td_fiber_switch
.type td_fiber_switch,@function
td_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size td_fiber_switch,.-td_fiber_switch
)");
#elif defined(__aarch64__)
asm(R"(
.weak td_fiber_switch
.type td_fiber_switch,%function
td_fiber_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size td_fiber_switch,.-td_fiber_switch
)");
#else
#error "the switch of fibers is written for x86-64 and arm64"
#endif

namespace td::cuda::emulator {

/// The stacks of the fibers of one block, kept from block to block. Pages are used when they are touched; below each stack lies
/// one that nobody may touch.
class FiberStacks {
 public:
  FiberStacks() = default;
  FiberStacks(const FiberStacks&) = delete;
  ~FiberStacks() { unmap(); }

  void reserve(int count) {
    if (count <= count_) return;
    unmap();
    void* map = mmap(nullptr, count * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(map);
    count_ = count;
    for (int i = 0; i < count; ++i) mprotect(base_ + i * kBytes, kPage, PROT_NONE);
  }

  /// A fiber that starts in `entry` when it is first switched to.
  void* prepare(int index, void (*entry)()) const {
    void** top = reinterpret_cast<void**>(base_ + (index + 1) * kBytes - 64);
#if defined(__x86_64__)
    *--top = nullptr;  // where entry would return to
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
#else
    for (int i = 0; i < 20; ++i) *--top = nullptr;
    top[11] = reinterpret_cast<void*>(entry);  // x30
#endif
    return top;
  }

 private:
  static constexpr size_t kBytes = 128 << 10, kPage = 4096;

  void unmap() {
    if (base_) munmap(base_, count_ * kBytes);
    base_ = nullptr;
    count_ = 0;
  }

  char* base_ = nullptr;
  int count_ = 0;
};

}  // namespace td::cuda::emulator
