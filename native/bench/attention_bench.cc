// Times the attention of the CPU, without Node; beside PyTorch: benchmarks/attention_native.py.
//   attention_bench [--shape B,H,Nq,Nk,d] [--type f32|bf16|f16] [--layout bhnd|tokens] [--backward] [--threads 2]
//                   [--runs 9] [--directory dir]
// --directory: reads q, k, v (and dy) as raw float32 [B,H,N,d] from <name>.bin there, writes out, lse (and dq, dk, dv) beside them.
// Prints one JSON line: median and minimum seconds, GFLOP/s at the median.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/half.h"
#include "cpu/attention/attention.h"
#include "cpu/isa.h"

using namespace td;
using namespace td::attention;

namespace {

struct Options {
  int64_t batch = 2, heads = 8, queries = 4096, keys = 4096, head_size = 40;
  std::string type = "f32", layout = "bhnd", directory;
  bool backward = false;
  int threads = 0, runs = 9;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--backward") {
      o.backward = true;
      continue;
    }
    if (i + 1 >= argc) throw std::invalid_argument(name + " needs a value");
    const std::string value = argv[++i];
    if (name == "--shape") {
      long long n[5];
      if (std::sscanf(value.c_str(), "%lld,%lld,%lld,%lld,%lld", n, n + 1, n + 2, n + 3, n + 4) != 5) {
        throw std::invalid_argument("--shape takes B,H,Nq,Nk,d, got " + value);
      }
      o.batch = n[0], o.heads = n[1], o.queries = n[2], o.keys = n[3], o.head_size = n[4];
    } else if (name == "--type") {
      o.type = value;
    } else if (name == "--layout") {
      o.layout = value;
    } else if (name == "--directory") {
      o.directory = value;
    } else if (name == "--threads") {
      o.threads = std::atoi(value.c_str());
    } else if (name == "--runs") {
      o.runs = std::atoi(value.c_str());
    } else {
      throw std::invalid_argument("unknown option " + name);
    }
  }
  return o;
}

DType type_of(const std::string& name) {
  if (name == "f32") return DType::f32;
  if (name == "bf16") return DType::bf16;
  if (name == "f16") return DType::f16;
  throw std::invalid_argument("--type takes f32, bf16 or f16, got " + name);
}

// One operand: [B,H,N,d] float32 outside, the asked type and layout inside.
class Operand {
 public:
  Operand(const Options& o, int64_t tokens)
      : type_(type_of(o.type)), batch_(o.batch), heads_(o.heads), tokens_(tokens), size_(o.head_size),
        bytes_(type_ == DType::f32 ? 4 : 2), data_(static_cast<size_t>(count() * bytes_)) {
    strides = o.layout == "tokens" ? strides_tokens(heads_, tokens_, size_)
                                   : strides_bhnd(heads_, tokens_, size_);
  }

  int64_t count() const { return batch_ * heads_ * tokens_ * size_; }
  void* data() { return data_.data(); }

  void set(const std::vector<float>& values) {
    each([&](int64_t from, int64_t to) {
      const float value = values[static_cast<size_t>(from)];
      char* place = data_.data() + to * bytes_;
      if (type_ == DType::f32) {
        std::memcpy(place, &value, 4);
      } else if (type_ == DType::bf16) {
        const uint16_t half = float_to_bf16(value);
        std::memcpy(place, &half, 2);
      } else {
        const uint16_t half = float_to_f16(value);
        std::memcpy(place, &half, 2);
      }
    });
  }

  std::vector<float> get() const {
    std::vector<float> values(static_cast<size_t>(count()));
    each([&](int64_t to, int64_t from) {
      const char* place = data_.data() + from * bytes_;
      float value;
      if (type_ == DType::f32) {
        std::memcpy(&value, place, 4);
      } else if (type_ == DType::bf16) {
        uint16_t half;
        std::memcpy(&half, place, 2);
        value = bf16_to_float(half);
      } else {
        uint16_t half;
        std::memcpy(&half, place, 2);
        value = f16_to_float(half);
      }
      values[static_cast<size_t>(to)] = value;
    });
    return values;
  }

  Strides strides;

 private:
  template <class Function>
  void each(Function function) const {
    int64_t plain = 0;
    for (int64_t b = 0; b < batch_; ++b)
      for (int64_t h = 0; h < heads_; ++h)
        for (int64_t n = 0; n < tokens_; ++n)
          for (int64_t i = 0; i < size_; ++i) {
            function(plain++, b * strides.batch + h * strides.head + n * strides.token + i);
          }
  }

  DType type_;
  int64_t batch_, heads_, tokens_, size_, bytes_;
  std::vector<char> data_;
};

void fill(Operand& operand, const Options& o, const char* name, unsigned seed) {
  std::vector<float> values(static_cast<size_t>(operand.count()));
  if (o.directory.empty()) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(generator);
  } else {
    std::ifstream file(o.directory + "/" + name + ".bin", std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * 4))) {
      throw std::runtime_error(std::string("cannot read ") + name + ".bin");
    }
  }
  operand.set(values);
}

void save(const std::vector<float>& values, const Options& o, const char* name) {
  std::ofstream file(o.directory + "/" + name + ".bin", std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 4));
  if (!file) throw std::runtime_error(std::string("cannot write ") + name + ".bin");
}

int run(const Options& o) {
  Operand q(o, o.queries), k(o, o.keys), v(o, o.keys), out(o, o.queries), dy(o, o.queries);
  Operand dq(o, o.queries), dk(o, o.keys), dv(o, o.keys);
  fill(q, o, "q", 1);
  fill(k, o, "k", 2);
  fill(v, o, "v", 3);
  std::vector<float> lse(static_cast<size_t>(o.batch * o.heads * o.queries));

  Problem p;
  p.type = type_of(o.type);
  p.batch = o.batch, p.heads = o.heads, p.queries = o.queries, p.keys = o.keys;
  p.head_size = p.value_size = o.head_size;
  p.scale = 1.0f / std::sqrt(static_cast<float>(o.head_size));
  p.q = q.data(), p.k = k.data(), p.v = v.data(), p.out = out.data(), p.lse = lse.data();
  p.q_strides = q.strides, p.k_strides = k.strides, p.v_strides = v.strides, p.out_strides = out.strides;
  Gradients g;
  g.dy = dy.data(), g.dq = dq.data(), g.dk = dk.data(), g.dv = dv.data();
  g.dy_strides = dy.strides, g.dq_strides = dq.strides, g.dk_strides = dk.strides, g.dv_strides = dv.strides;

  forward(p, o.threads);
  if (o.backward) fill(dy, o, "dy", 4);
  std::vector<double> seconds;
  for (int i = 0; i <= o.runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (o.backward) {
      backward(p, g, o.threads);
    } else {
      forward(p, o.threads);
    }
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i > 0) seconds.push_back(taken);  // the first is a warm-up
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  // Two products forward; five backward, which recomputes the scores.
  const double flop = (o.backward ? 10.0 : 4.0) * static_cast<double>(o.batch * o.heads) * static_cast<double>(o.queries) *
                      static_cast<double>(o.keys) * static_cast<double>(o.head_size);
  std::printf("{\"work\": \"attention%s-%lldx%lldx%lldx%lldx%lld\", \"type\": \"%s\", \"layout\": \"%s\", \"isa\": \"%s\", "
              "\"median_s\": %.6f, \"min_s\": %.6f, \"max_s\": %.6f, \"gflops\": %.1f}\n",
              o.backward ? "-backward" : "", static_cast<long long>(o.batch), static_cast<long long>(o.heads),
              static_cast<long long>(o.queries), static_cast<long long>(o.keys), static_cast<long long>(o.head_size),
              o.type.c_str(), o.layout.c_str(), name_of(isa()), median, seconds.front(), seconds.back(),
              flop / median / 1e9);
  if (!o.directory.empty()) {
    save(out.get(), o, "out");
    save(lse, o, "lse");
    if (o.backward) {
      save(dq.get(), o, "dq");
      save(dk.get(), o, "dk");
      save(dv.get(), o, "dv");
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
