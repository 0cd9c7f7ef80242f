// Random numbers of a stored type, and the measure of an error: against float64 of the same rounded inputs, beside what rounding the exact
// result costs in that type.
#pragma once
#include <cmath>
#include <random>
#include <vector>

#include "cuda/kernels/device.cuh"
#include "device_memory.h"

namespace td::cuda::test {

template <class T>
using Number = typename Stored<T>::type;

template <class T>
double read(Number<T> x) {
  return Stored<T>::load(&x, 0);
}
template <class T>
Number<T> rounded(double x) {
  Number<T> y;
  Stored<T>::store(&y, 0, static_cast<float>(x));
  return y;
}

/// Normal numbers of the type.
template <class T>
std::vector<Number<T>> random_numbers(size_t count, unsigned seed, float spread = 1.f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.f, spread);
  std::vector<Number<T>> numbers(count);
  for (auto& x : numbers) x = rounded<T>(normal(generator));
  return numbers;
}

/// Sums of squares over the numbers of a result.
template <class T>
struct Error {
  double difference = 0, rounding = 0, norm = 0;

  void add(Number<T> got, double want) {
    const double d = read<T>(got) - want, r = read<T>(rounded<T>(want)) - want;
    difference += std::isnan(d) ? INFINITY : d * d;
    rounding += r * r;
    norm += want * want;
  }
  double relative() const { return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm); }
  /// How many times the error of rounding alone.
  double times() const { return difference == 0 ? 0 : std::sqrt(difference / rounding); }
};

}  // namespace td::cuda::test
