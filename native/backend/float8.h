// 8-bit floating-point codes on both backends, in integer arithmetic on the bits of f32: every device gives the same
// codes. to_code rounds to nearest even; what is finite saturates, what is not stays so (f8e4m3 has NaN alone).
#pragma once
#include <cstdint>

#include "../ops/float8.h"
#include "call.h"

namespace zs {

struct f8e4m3 {
  uint8_t bits;
  static constexpr int kMantissa = 3, kBias = 7;
  static constexpr uint32_t kLargest = 0x7e, kInfinity = 0x7f;
};
struct f8e5m2 {
  uint8_t bits;
  static constexpr int kMantissa = 2, kBias = 15;
  static constexpr uint32_t kLargest = 0x7b, kInfinity = 0x7c;
};

template <class T> constexpr bool is_float8 = false;
template <> constexpr inline bool is_float8<f8e4m3> = true;
template <> constexpr inline bool is_float8<f8e5m2> = true;

namespace {

constexpr inline uint32_t rounded_shift(uint32_t x, int by) { return (x + (1u << (by - 1)) - 1 + (x >> by & 1)) >> by; }

template <class F> constexpr inline uint8_t to_code(uint32_t x) {
  constexpr int least = 128 - F::kBias, cut = 23 - F::kMantissa;  // f32's exponent of the smallest normal number
  const uint32_t sign = x >> 24 & 0x80, a = x & 0x7fffffffu;
  if (a >= 0x7f800000u) return static_cast<uint8_t>(sign | (a > 0x7f800000u ? 0x7f : F::kInfinity));
  const int exponent = static_cast<int>(a >> 23);
  if (exponent >= least) {
    const uint32_t code = rounded_shift(a, cut) - (static_cast<uint32_t>(least - 1) << F::kMantissa);
    return static_cast<uint8_t>(sign | (code < F::kLargest ? code : F::kLargest));
  }
  const int shift = cut + least - exponent;
  if (shift > 24) return static_cast<uint8_t>(sign);  // less than half of the smallest
  return static_cast<uint8_t>(sign | rounded_shift((a & 0x7fffffu) | 0x800000u, shift));
}

// The value's f32 bits, of which the upper 16 are its bf16: exact.
template <class F> constexpr inline uint32_t of_code(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, a = code & 0x7fu;
  if (a > F::kLargest) return sign | (a == F::kInfinity && F::kInfinity != 0x7f ? 0x7f800000u : 0x7fc00000u);
  uint32_t exponent = a >> F::kMantissa, mantissa = a & ((1u << F::kMantissa) - 1);
  if (a == 0) return sign;
  if (exponent == 0) {
    for (exponent = 1; !(mantissa >> F::kMantissa); exponent--) mantissa <<= 1;  // may pass below 0, as f32's does not
    mantissa &= (1u << F::kMantissa) - 1;
  }
  return sign | (exponent + 127 - F::kBias) << 23 | mantissa << (23 - F::kMantissa);
}

// The scale of a tensor whose largest value is `amax`, neither 0 nor infinite nor NaN.
constexpr inline float scale_of(float amax, float largest, float factor) {
  const float scale = largest / amax * factor;
  return scale < 0x1p60f ? scale : 0x1p60f;
}
constexpr inline bool has_scale(float amax) { return amax > 0 && amax <= 3.402823466e38f; }

template <class Body> int32_t by_float8(zs_call *call, int dtype, Body body) {
  switch (dtype) {
    case ZS_F8E4M3: return body(f8e4m3{});
    case ZS_F8E5M2: return body(f8e5m2{});
    default: return fail(call, ZS_UNSUPPORTED, "element type %d is no 8-bit floating-point type", dtype);
  }
}

constexpr inline int64_t padded(int64_t rows) { return (rows + 15) / 16 * 16; }

// The type of the codes; -1, with the error in the call: something is wrong with it.
inline int check_quantize(zs_call *call) {
  const zs_tensor *t = call->tensors;
  const zs_tensor &y = t[QUANTIZE_Y], &y_t = t[QUANTIZE_Y_T];
  const int64_t rows = integer(call, QUANTIZE_ROWS), cols = integer(call, QUANTIZE_COLS);
  const int dtype = y.dtype >= 0 ? y.dtype : y_t.dtype;
  if (dtype != ZS_F8E4M3 && dtype != ZS_F8E5M2)
    fail(call, ZS_BAD_ARGUMENT, "quantize: y is of dtype %d; give f8e4m3 or f8e5m2", dtype);
  else if (y.dtype >= 0 && y_t.dtype >= 0 && y_t.dtype != y.dtype)
    fail(call, ZS_BAD_ARGUMENT, "quantize: y is of dtype %d, its transpose of %d", y.dtype, y_t.dtype);
  else if (rows < 0 || cols < 0 || t[QUANTIZE_X].count != rows * cols || (y.dtype >= 0 && y.count != rows * cols) ||
           (y_t.dtype >= 0 && y_t.count != cols * padded(rows)))
    fail(call, ZS_BAD_ARGUMENT, "quantize: %lld, %lld and %lld elements for (%lld, %lld)",
         static_cast<long long>(t[QUANTIZE_X].count), static_cast<long long>(y.count),
         static_cast<long long>(y_t.count), static_cast<long long>(rows), static_cast<long long>(cols));
  else return dtype;
  return -1;
}

inline int32_t check_fp8_matmul(zs_call *call) {
  const zs_tensor *t = call->tensors;
  const int a = t[FP8_MATMUL_A].dtype, b = t[FP8_MATMUL_B].dtype, y = t[FP8_MATMUL_Y].dtype;
  const auto is8 = [](int dtype) { return dtype == ZS_F8E4M3 || dtype == ZS_F8E5M2; };
  if (!is8(a) || !is8(b) || (a == ZS_F8E5M2 && b == ZS_F8E5M2) || y < ZS_F32 || y > ZS_F16)
    return fail(call, ZS_UNSUPPORTED, "fp8_matmul: dtypes a %d, b %d, y %d", a, b, y);
  const bool bias = present(call, FP8_MATMUL_BIAS);
  if (bias && (y == ZS_F32 || t[FP8_MATMUL_BIAS].dtype != y))
    return fail(call, ZS_BAD_ARGUMENT, "fp8_matmul: bias of dtype %d with y of dtype %d", t[FP8_MATMUL_BIAS].dtype, y);
  const int64_t m = integer(call, FP8_MATMUL_M), n = integer(call, FP8_MATMUL_N), k = integer(call, FP8_MATMUL_K);
  if (t[FP8_MATMUL_A].count != m * k || t[FP8_MATMUL_B].count != n * k || t[FP8_MATMUL_Y].count != m * n)
    return fail(call, ZS_BAD_ARGUMENT, "fp8_matmul: the tensors are not (%lld, %lld) and (%lld, %lld)",
                static_cast<long long>(m), static_cast<long long>(k), static_cast<long long>(n), static_cast<long long>(k));
  return ZS_OK;
}

}  // namespace
}  // namespace zs
