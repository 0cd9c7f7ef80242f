#include "cuda/transfer.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "core/errors.h"

namespace td::cuda {
namespace {

/// Copies longer than this go in pieces, so that reading the host's numbers and sending them overlap.
constexpr size_t kPiece = size_t{4} << 20;
constexpr size_t kSmallest = 4096;

struct Pool {
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> free;
  size_t kept = 0;
};
Pool& pool() {
  static Pool* pool = new Pool;
  return *pool;
}

size_t capacity_for(size_t bytes) {
  size_t capacity = kSmallest;
  while (capacity < bytes) capacity *= 2;
  return capacity;
}

CUdeviceptr address(const void* at) { return reinterpret_cast<CUdeviceptr>(at); }

/// A piece on its way, with the memory that it is read from.
struct Flight {
  std::unique_ptr<Pinned> memory;
  std::unique_ptr<Event> event;
};

}  // namespace

Pinned::Pinned(size_t bytes) : bytes_(capacity_for(bytes)) {
  Pool& p = pool();
  {
    const std::lock_guard<std::mutex> lock(p.mutex);
    auto& blocks = p.free[bytes_];
    if (!blocks.empty()) {
      data_ = blocks.back();
      blocks.pop_back();
      p.kept -= bytes_;
      return;
    }
  }
  use_card();
  check(driver().mem_alloc_host(&data_, bytes_), "cuMemAllocHost");
}

Pinned::~Pinned() {
  constexpr size_t kMost = size_t{64} << 20;
  Pool& p = pool();
  const std::lock_guard<std::mutex> lock(p.mutex);
  if (p.kept + bytes_ <= kMost) {
    p.free[bytes_].push_back(data_);
    p.kept += bytes_;
    return;
  }
  driver().mem_free_host(data_);
}

void send(const void* from, void* to, size_t bytes) {
  if (bytes == 0) return;
  require_no_capture("sending numbers to the GPU");
  use_card();
  const Driver& d = driver();
  // The block may have served kernels that are still to run.
  wait_for_stream(card().copies, card().compute);
  std::deque<Flight> flights;
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t count = std::min(kPiece, bytes - at);
    if (flights.size() == 2) {
      flights.front().event->wait();
      flights.push_back(std::move(flights.front()));
      flights.pop_front();
    } else {
      flights.push_back({std::make_unique<Pinned>(std::min(kPiece, bytes)), std::make_unique<Event>()});
    }
    Flight& flight = flights.back();
    std::memcpy(flight.memory->data(), static_cast<const char*>(from) + at, count);
    check(d.memcpy_host_to_device(address(static_cast<char*>(to) + at), flight.memory->data(), count, card().copies), "cuMemcpyHtoDAsync");
    flight.event->record(card().copies);
  }
  wait_for_stream(card().compute, card().copies);
  // Pinned memory must not be written again before it is read; waiting here costs the last two pieces only.
  for (const Flight& flight : flights) flight.event->wait();
}

std::function<void()> begin_receive(std::shared_ptr<const void> keep, const void* from, void* to, size_t bytes) {
  require_no_capture("reading numbers");
  use_card();
  if (bytes == 0) return [] {};
  const auto pinned = std::make_shared<Pinned>(bytes);
  const auto event = std::make_shared<Event>();
  check(driver().memcpy_device_to_host(pinned->data(), address(from), bytes, card().compute), "cuMemcpyDtoHAsync");
  event->record(card().compute);
  return [keep = std::move(keep), pinned, event, to, bytes] {
    event->wait();
    std::memcpy(to, pinned->data(), bytes);
  };
}

}  // namespace td::cuda
