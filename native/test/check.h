#pragma once
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/kernel.h"

/// What tests of kernels need beside doctest: random tensors, kernels by name, errors of tensors.
namespace check {

std::mt19937& generator();
int64_t random_integer(int64_t from, int64_t to);
/// Normal numbers, rounded to the type.
td::Tensor random_tensor(const td::Shape& shape, td::DType type = td::DType::f32, float scale = 1.0f);
std::vector<float> floats(const td::Tensor& tensor);
/// |actual - expected| / |expected|
double relative_error(const std::vector<float>& actual, const std::vector<float>& expected);

/// Runs a kernel by name.
std::vector<td::Tensor> run(const char* kernel, const std::vector<td::Tensor>& inputs,
                            const std::function<void(td::Attributes&)>& set = [](td::Attributes&) {});
/// The message of the KernelError or OutOfMemory that the call ends with, or "".
std::string failure(const std::function<void()>& work);

}  // namespace check

#define CHECK_CLOSE(actual, expected, bound) CHECK(check::relative_error(actual, expected) <= (bound))
