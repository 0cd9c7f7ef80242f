#include "test/check.h"
#include "cpu/pool.h"

#include <algorithm>

using namespace td;

// Under AddressSanitizer nothing is pooled.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPooled = false;
#else
constexpr bool kPooled = true;
#endif

TEST_CASE("blocks are aligned and reused") {
  MemoryPool& pool = MemoryPool::instance();
  pool.trim();
  const size_t before = pool.info().in_use;
  void* first = nullptr;
  for (size_t bytes : {size_t{1}, size_t{100}, size_t{5000}, size_t{3} << 20, size_t{40} << 20}) {
    {
      Buffer buffer(bytes);
      first = buffer.data();
      CHECK(reinterpret_cast<uintptr_t>(first) % 64 == 0);
      static_cast<char*>(first)[0] = 1;
      static_cast<char*>(first)[bytes - 1] = 1;
      CHECK(pool.info().in_use >= before + bytes);
      CHECK(pool.info().in_use <= before + bytes + bytes / 4 + 4096);
      CHECK(pool.info().peak >= pool.info().in_use);
    }
    Buffer again(bytes);
    CHECK((!kPooled || again.data() == first));
  }
  CHECK(pool.info().in_use == before);
  CHECK((!kPooled || pool.info().pooled > 0));
  pool.trim();
  CHECK(pool.info().pooled == 0);
}

TEST_CASE("the limit is kept and can be lifted") {
  MemoryPool& pool = MemoryPool::instance();
  const size_t limit = pool.info().in_use + (size_t{8} << 20);
  pool.set_limit(limit);
  {
    Buffer fits(size_t{6} << 20);
    CHECK(check::failure([] { Buffer large(size_t{4} << 20); }).find("limit") != std::string::npos);
  }
  // What lies in the pool makes room.
  Buffer fits(size_t{7} << 20);
  CHECK(pool.info().in_use + pool.info().pooled <= limit);
  pool.set_limit(0);
  Buffer large(size_t{16} << 20);
  CHECK(check::failure([] { Buffer endless(size_t{1} << 50); }) != "");
  CHECK(check::failure([] { Buffer more_than_there_is(size_t{1} << 45); }) != "");
}

TEST_CASE("the peak starts again") {
  MemoryPool& pool = MemoryPool::instance();
  pool.reset_peak();
  const size_t before = pool.info().peak;
  { Buffer buffer(size_t{32} << 20); }
  CHECK(pool.info().peak >= before + (size_t{32} << 20));
  pool.reset_peak();
  CHECK(pool.info().peak == pool.info().in_use);
}

TEST_CASE("large blocks are cut and joined") {
  MemoryPool& pool = MemoryPool::instance();
  pool.trim();
  const size_t before = pool.info().in_use, unit = size_t{3} << 20;
  { Buffer whole(8 * unit); }
  const size_t pooled = pool.info().pooled;
  for (int round = 0; round < 200; ++round) {
    std::vector<std::unique_ptr<Buffer>> parts;
    size_t total = 0;
    while (true) {
      const size_t bytes = static_cast<size_t>(check::random_integer(1, 3)) * unit;
      if (total + bytes > 8 * unit) break;
      parts.push_back(std::make_unique<Buffer>(bytes));
      total += bytes;
    }
    // Blocks do not overlap.
    for (size_t i = 0; i < parts.size(); ++i) static_cast<char*>(parts[i]->data())[parts[i]->bytes() - 1] = static_cast<char>(i);
    for (size_t i = 0; i < parts.size(); ++i) CHECK(static_cast<char*>(parts[i]->data())[parts[i]->bytes() - 1] == static_cast<char>(i));
    std::shuffle(parts.begin(), parts.end(), check::generator());
  }
  // All of it fitted where the first block was.
  CHECK(pool.info().in_use == before);
  CHECK(pool.info().pooled == pooled);
}
