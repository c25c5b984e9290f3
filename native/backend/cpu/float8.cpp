// quantize, fp8_scale, fp8_matmul. A product's codes are widened to bf16 (f16 where y is f16), which holds every one
// exactly, and multiplied as those are.
#include "../float8.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

#include "floats.h"
#include "gemm.h"

namespace zs::cpu {
namespace {

constexpr int64_t kRows = 16, kCols = 64;

template <class T, class F>
uint32_t quantize_rows(const zs_call *call, int64_t begin, int64_t end, int64_t rows, int64_t cols, float scale) {
  const T *x = data<T>(call, QUANTIZE_X);
  uint8_t *y = data<uint8_t>(call, QUANTIZE_Y), *y_t = data<uint8_t>(call, QUANTIZE_Y_T);
  uint8_t codes[kRows][kCols];
  uint32_t top = 0;
  for (int64_t r0 = begin * kRows; r0 < end * kRows; r0 += kRows) {
    const int64_t num_rows = std::min(kRows, rows - r0);
    for (int64_t c0 = 0; c0 < cols; c0 += kCols) {
      const int64_t num_cols = std::min(kCols, cols - c0);
      for (int64_t r = 0; r < num_rows; r++)
        for (int64_t c = 0; c < num_cols; c++) {
          const float value = to_float(x[(r0 + r) * cols + c0 + c]);
          top = std::max(top, std::bit_cast<uint32_t>(value) & 0x7fffffffu);
          codes[r][c] = to_code<F>(std::bit_cast<uint32_t>(value * scale));
        }
      for (int64_t r = 0; y && r < num_rows; r++)
        for (int64_t c = 0; c < num_cols; c++) y[(r0 + r) * cols + c0 + c] = codes[r][c];
      for (int64_t c = 0; y_t && c < num_cols; c++)
        for (int64_t r = 0; r < kRows; r++) y_t[(c0 + c) * padded(rows) + r0 + r] = r < num_rows ? codes[r][c] : 0;
    }
  }
  return top;
}

template <class F> void widen_codes(const zs_call *call, int index, bool to_half, uint16_t *wide) {
  uint16_t values[256];
  for (int code = 0; code < 256; code++) {
    const uint32_t bits = of_code<F>(static_cast<uint8_t>(code));
    values[code] = to_half ? to_f16(std::bit_cast<float>(bits)).bits : static_cast<uint16_t>(bits >> 16);
  }
  const uint8_t *codes = data<uint8_t>(call, index);
  parallel_for(call, count_of(call, index), 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) wide[i] = values[codes[i]];
  });
}

std::unique_ptr<uint16_t[]> widened(zs_call *call, int index, bool to_half) {
  std::unique_ptr<uint16_t[]> wide(new (std::nothrow) uint16_t[static_cast<size_t>(count_of(call, index)) + 1]);
  if (!wide) return wide;
  by_float8(call, dtype_of(call, index), [&]<class F>(F) {
    widen_codes<F>(call, index, to_half, wide.get());
    return int32_t{ZS_OK};
  });
  return wide;
}

}  // namespace

int32_t quantize(zs_call *call) {
  const int dtype = check_quantize(call);
  if (dtype < 0) return ZS_BAD_ARGUMENT;
  const int64_t rows = integer(call, QUANTIZE_ROWS), cols = integer(call, QUANTIZE_COLS);
  const float scale = data<float>(call, QUANTIZE_SCALE)[0];
  float *amax = data<float>(call, QUANTIZE_AMAX);
  std::atomic<uint32_t> top{std::bit_cast<uint32_t>(std::fabs(amax[0]))};
  int32_t status = by_float(call, dtype_of(call, QUANTIZE_X), [&]<class T>(T) {
    return by_float8(call, dtype, [&]<class F>(F) {
      parallel_for(call, padded(rows) / kRows, row_grain(cols * kRows), [&](int64_t begin, int64_t end) {
        const uint32_t here = quantize_rows<T, F>(call, begin, end, rows, cols, scale);
        uint32_t known = top.load();
        while (here > known && !top.compare_exchange_weak(known, here)) {}
      });
      return int32_t{ZS_OK};
    });
  });
  amax[0] = std::bit_cast<float>(top.load());
  return status;
}

int32_t fp8_scale(zs_call *call) {
  const int64_t n = integer(call, FP8_SCALE_N), length = integer(call, FP8_SCALE_LENGTH);
  const float factor = std::ldexp(1.0f, -static_cast<int>(integer(call, FP8_SCALE_MARGIN)));
  const float *largest = data<float>(call, FP8_SCALE_LARGEST);
  float *scale = data<float>(call, FP8_SCALE_SCALE), *inverse = data<float>(call, FP8_SCALE_INVERSE);
  float *amax = data<float>(call, FP8_SCALE_AMAX);
  for (int64_t i = 0; i < n; i++) {
    float a = amax[i];
    if (present(call, FP8_SCALE_HISTORY)) {
      amax[i] = 0;
      if (!std::isfinite(a)) continue;
      float *history = data<float>(call, FP8_SCALE_HISTORY) + i * length;
      std::copy_backward(history, history + length - 1, history + length);
      history[0] = a;
      if (integer(call, FP8_SCALE_OF_LARGEST)) a = *std::max_element(history, history + length);
      if (!has_scale(a)) continue;
    }
    scale[i] = has_scale(a) ? scale_of(a, largest[i], factor) : 1.0f;
    inverse[i] = 1.0f / scale[i];
  }
  return ZS_OK;
}

int32_t fp8_matmul(zs_call *call) {
  if (int32_t status = check_fp8_matmul(call)) return status;
  const zs_tensor *t = call->tensors;
  const int y_dtype = t[FP8_MATMUL_Y].dtype, wide = y_dtype == ZS_F16 ? ZS_F16 : ZS_BF16;
  GemmProblem p{};
  p.m = integer(call, FP8_MATMUL_M), p.n = integer(call, FP8_MATMUL_N), p.k = integer(call, FP8_MATMUL_K);
  if (p.m == 0 || p.n == 0) return ZS_OK;
  const auto a = widened(call, FP8_MATMUL_A, wide == ZS_F16), b = widened(call, FP8_MATMUL_B, wide == ZS_F16);
  if (!a || !b) return fail(call, ZS_NO_MEMORY, "fp8_matmul: no memory for the operands in 16 bits");
  p.a = a.get(), p.b = b.get();
  p.trans_b = true;
  p.a_row = p.b_row = p.k;
  p.a_size = 2, p.y_size = y_dtype == ZS_F32 ? 4 : 2;
  p.finish.y = t[FP8_MATMUL_Y].data;
  p.finish.bias = t[FP8_MATMUL_BIAS].data;
  p.finish.accumulate = integer(call, FP8_MATMUL_ACCUMULATE) != 0;
  p.finish.alpha = data<float>(call, FP8_MATMUL_A_INVERSE)[0] * data<float>(call, FP8_MATMUL_B_INVERSE)[0];
  p.kernels = gemm_kernels(wide);
  if (!(p.m <= 8 ? gemm_few_rows(call, p, wide) : gemm(call, p)))
    return fail(call, ZS_NO_MEMORY, "fp8_matmul: no memory for packing");
  return ZS_OK;
}

}  // namespace zs::cpu
