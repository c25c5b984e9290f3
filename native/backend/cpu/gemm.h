// Matrix product of packed panels: the table that each instruction set fills for each input dtype, and its driver.
// c (M,N) = a (M,K) b (K,N). Panels hold mr rows of a, or nr columns of b, k by k: panel[k][mr]. Slots are four
// bytes: one f32, or two consecutive k in bf16 where the machine multiplies pairs. The order of the sum over K is
// fixed by K alone: neither threads, nor M, nor N, nor the place of a tile changes it (few rows differ: matmul.cpp).
#pragma once
#include <cstdint>

#include "../backend.h"

namespace zs::cpu {

// What happens to a finished tile of sums. Pointers are those of the tile's first element.
struct GemmFinish {
  const float *sums;
  int64_t sums_row;  // elements between rows
  int64_t rows, cols, row;  // row: elements between rows of y, pre, pre_in
  void *y, *pre;
  const void *bias, *pre_in;
  float alpha;
  int epilogue;
  bool accumulate;
};

struct GemmKernels {
  int mr, nr, pair;  // pair: how many k share one slot (1 or 2)
  // Packs a panel: element (j, k), j < count, lies at source + j * row + k (k_contiguous) or source + k * row + j.
  // Slots j of count..width are 0. May write up to 64 bytes behind the panel.
  void (*pack)(const void *source, int64_t row, bool k_contiguous, int count, int64_t num_k, int width, float *panel);
  // c[rows][nr] (+)= panel a * panel b over `slots` slots.
  void (*tile)(int rows, int64_t slots, const float *a, const float *b, float *c, int64_t c_row, bool add);
  // Few rows: sums (m, n) = x (m, k) f32 times b as it lies, (K,N) or (N,K) when transposed. m <= 8.
  void (*few_rows)(int m, int64_t n, int64_t k, const float *x, const void *b, int64_t b_row, bool trans_b,
                   float *sums, int64_t sums_row);
  void (*finish_f32)(const GemmFinish &tile);   // y f32
  void (*finish_same)(const GemmFinish &tile);  // y in the inputs' dtype
};

// Indexed by zs_dtype: f32, bf16, f16.
extern const GemmKernels gemm_portable[3], gemm_avx2[3], gemm_avx512[3], gemm_avx512bf16;

// The table of this machine; without pairs, slots are f32 for every dtype.
const GemmKernels *gemm_kernels(int dtype, bool pairs = true);

struct GemmProblem {
  int64_t m, n, k;
  const void *a, *b;
  int64_t a_row, b_row;
  bool trans_a, trans_b;
  int a_size, y_size;  // bytes of an element
  GemmFinish finish;   // for the whole of y
  const GemmKernels *kernels;
};

bool gemm(const zs_call *call, const GemmProblem &problem);  // false: no memory
// Item i of a batch: a and b moved by i steps (elements), y and its companions by i * M * N.
GemmProblem gemm_item(const GemmProblem &first, int64_t i, int64_t a_step, int64_t b_step);
// m <= 8: reads b once, as it lies.
bool gemm_few_rows(const zs_call *call, const GemmProblem &problem, int a_dtype);
// Many small independent products, one per task.
bool gemm_batch(const zs_call *call, const GemmProblem &first, int64_t batch, int64_t a_step, int64_t b_step);

}  // namespace zs::cpu
