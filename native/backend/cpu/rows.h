// Vectorised primitives on rows of f32 that softmax, attention and the classifier share; one table per width.
#pragma once
#include <cstdint>

namespace zs::cpu {

struct RowKernels {
  float (*maximum)(const float *x, int64_t n);  // -infinity where n is 0; NaNs are skipped
  // x = e^(scale * x - shift); returns the sum. A NaN goes into the sum.
  float (*exp_sum)(float *x, int64_t n, float scale, float shift);
  float (*dot)(const float *x, const float *y, int64_t n);
};

extern const RowKernels rows_portable, rows_avx2, rows_avx512;
const RowKernels &row_kernels();  // of this machine

}  // namespace zs::cpu
