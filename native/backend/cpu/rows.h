// Vectorised primitives, one table per width: rows of f32 for softmax, attention and the classifier; activations;
// norms; random numbers; the gradients' norm.
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
// Rows of `cols`; weight and bias in f32. mean: nullptr for rms. See native/ops/norm.h.
struct NormForward {
  void *y, *sum;
  float *mean, *rstd;
  const void *x, *residual;  // residual: nullptr, or added to x first
  const float *weight, *bias;
  int64_t cols;
  float eps;
};
struct NormBackward {
  void *dx;
  const void *dy, *x, *dresidual;
  const float *mean, *rstd, *weight;
  int64_t cols;
};
struct NormKernels {
  // Rows begin to end; scratch: cols floats, backward 2 cols. Adds to dweight and dbias, which may be absent.
  void (*forward)(const NormForward &f, int64_t begin, int64_t end, float *scratch);
  void (*backward)(const NormBackward &f, int64_t begin, int64_t end, float *dweight, float *dbias, float *scratch);
};

// By dtype of the gradients. See native/ops/optimizer.h.
struct GradientKernels {
  uint32_t (*absmax)(const void *x, int64_t n);
  void (*squares)(const void *x, int64_t n, double scale, int64_t *high, int64_t *low);
};

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
  // By dtype: f32, bf16, f16.
  Activations activations[3];
  NormKernels norms[3];
  GradientKernels gradients[3];
};

extern const RowKernels rows_portable, rows_avx2, rows_avx512;
const RowKernels &row_kernels();  // of this machine

}  // namespace zs::cpu
