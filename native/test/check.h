#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/kernel.h"

/// The little that the tests need of a test framework: named cases, checks, random tensors.
namespace check {

struct Case {
  const char* name;
  void (*run)();
};
std::vector<Case>& cases();
struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};
void fail(const char* file, int line, const std::string& message);

#define TEST(name)                                  \
  static void name();                               \
  static const check::Register register_##name(#name, name); \
  static void name()
#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) check::fail(__FILE__, __LINE__, "not true: " #condition); \
  } while (false)
#define CHECK_CLOSE(actual, expected, bound)                                                                  \
  do {                                                                                                        \
    const double error_ = check::relative_error(actual, expected);                                            \
    if (!(error_ <= (bound))) check::fail(__FILE__, __LINE__, "relative error " + std::to_string(error_)); \
  } while (false)

std::mt19937& generator();
int64_t random_integer(int64_t from, int64_t to);
/// Normal numbers, rounded to the type.
td::Tensor random_tensor(const td::Shape& shape, td::DType type = td::DType::f32, float scale = 1.0f);
std::vector<float> floats(const td::Tensor& tensor);
double relative_error(const std::vector<float>& actual, const std::vector<float>& expected);

/// Runs a kernel by name.
std::vector<td::Tensor> run(const char* kernel, const std::vector<td::Tensor>& inputs,
                            const std::function<void(td::Attributes&)>& set = [](td::Attributes&) {});
/// The message of the KernelError or OutOfMemory that the call ends with, or "".
std::string failure(const std::function<void()>& work);

}  // namespace check
