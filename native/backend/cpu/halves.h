// Ranges of bf16 and f16 from and to f32, in vectors. The bits are those of float16.h, one by one.
#pragma once
#include <cstring>

#include "float16.h"

namespace zs::cpu {

void widen_range(float *y, const bf16 *x, int64_t n);
void widen_range(float *y, const f16 *x, int64_t n);
void narrow_range(bf16 *y, const float *x, int64_t n);
void narrow_range(f16 *y, const float *x, int64_t n);

inline void narrow_range(float *y, const float *x, int64_t n) { memcpy(y, x, sizeof(float) * static_cast<size_t>(n)); }

}  // namespace zs::cpu
