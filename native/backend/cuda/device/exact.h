// A float whose products and sums the compiler never fuses: the CPU's kernels are built so too, and where both use
// it (optimizers, random numbers, affine) the device's bits are the host's.
#pragma once
#include "types.h"

namespace zs::cuda {

struct Exact {
  float value;
  __device__ Exact(float x) : value(x) {}
  __device__ operator float() const { return value; }
};

__device__ inline Exact operator+(Exact a, Exact b) { return __fadd_rn(a.value, b.value); }
__device__ inline Exact operator-(Exact a, Exact b) { return __fadd_rn(a.value, -b.value); }
__device__ inline Exact operator*(Exact a, Exact b) { return __fmul_rn(a.value, b.value); }
__device__ inline Exact operator/(Exact a, Exact b) { return __fdiv_rn(a.value, b.value); }
__device__ inline Exact root(Exact a) { return __fsqrt_rn(a.value); }
// One operand may be a plain float.
#define ZS_MIXED(op)                                                                   \
  __device__ inline Exact operator op(Exact a, float b) { return a op Exact(b); }      \
  __device__ inline Exact operator op(float a, Exact b) { return Exact(a) op b; }
ZS_MIXED(+)
ZS_MIXED(-)
ZS_MIXED(*)
ZS_MIXED(/)
#undef ZS_MIXED

}  // namespace zs::cuda
