// The kernels of one instruction set, for a product policy.
#pragma once

#include "cpu/attention/backward.h"
#include "cpu/attention/forward.h"

namespace td::attention {
namespace {

template <class A>
Kernels make_kernels() {
  Kernels kernels;
  kernels.forward_scratch = Forward<A>::scratch;
  kernels.forward = Forward<A>::run;
  kernels.delta = Backward<A>::delta;
  kernels.backward_scratch = Backward<A>::scratch;
  kernels.backward_head = Backward<A>::head;
  kernels.backward_keys = Backward<A>::keys;
  kernels.backward_queries = Backward<A>::queries;
  return kernels;
}

}  // namespace
}  // namespace td::attention
