// Vectorised primitives, one table per width: rows of f32 for softmax, attention and the classifier; activations;
// random numbers.
#pragma once
#include <cstdint>

namespace zs::cpu {

// Elementwise over n values of one dtype. `kind`: UnaryKind; false where it has no vector form.
struct Activations {
  bool (*value)(int kind, void *y, const void *x, int64_t n);
  bool (*slope)(int kind, void *dx, const void *dy, const void *x, int64_t n);  // dx = dy * f'(x)
  void (*swiglu)(void *y, const void *gate, const void *up, int64_t n);
  void (*swiglu_slope)(void *dgate, void *dup, const void *dy, const void *gate, const void *up, int64_t n);
};

// What dropout draws from: element `index` is kept where its word >> 8 is at least `threshold` (native/ops/random.h).
struct Draws {
  uint64_t seed, site;
  uint32_t threshold;
  float scale;  // 1 / (1 - p)
};
Draws draws_of(float p, uint64_t seed, uint64_t site);

struct RowKernels {
  float (*maximum)(const float *x, int64_t n);  // -infinity where n is 0; NaNs are skipped
  // x = e^(scale * x - shift); returns the sum. A NaN goes into the sum.
  float (*exp_sum)(float *x, int64_t n, float scale, float shift);
  float (*dot)(const float *x, const float *y, int64_t n);
  // y = numbers first to first + n - 1 of (seed, site): see native/ops/random.h. The same bits at every width.
  void (*uniform)(float *y, int64_t n, uint64_t seed, uint64_t site, uint64_t first);
  void (*normal)(float *y, int64_t n, uint64_t seed, uint64_t site, uint64_t first);
  // mask[i] = draws.scale where element index + i is kept, else 0.
  void (*kept)(float *mask, int64_t n, const Draws &draws, uint64_t index);
  Activations activations[3];  // by dtype: f32, bf16, f16
};

extern const RowKernels rows_portable, rows_avx2, rows_avx512;
const RowKernels &row_kernels();  // of this machine

}  // namespace zs::cpu
