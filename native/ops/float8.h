/* 8-bit floating point with one scale per tensor. f8e4m3: largest 448, one NaN, no infinity; f8e5m2: largest 57344,
 * IEEE's infinity and NaNs. A code stands for its value times the tensor's inverse scale. Matrices of products lie
 * row by row with K last, as tensor cores take them: what another product reads along the other dimension is a second,
 * transposed copy.
 * quantize: codes of x (rows, cols) times scale, rounded to nearest even; what is finite saturates, NaN stays NaN,
 *   infinity stays infinity (f8e4m3: NaN), so that an overflow is still seen. amax f32 (1) = max(amax, max|x|), NaN if
 *   any is NaN. y (rows, cols) and y_t (cols, rows rounded up to 16; the rest 0): either may be absent, both of one
 *   f8 type. x f32, bf16, f16; scale f32 (1).
 * fp8_scale: scale and inverse (n) f32 of n tensors from their amax (n): scale = largest / a * 2^-margin, at most 2^60.
 *   Without history a = amax, and scale = 1 where that is 0 or not finite. With history (n, length), newest first:
 *   amax is put in front (not where it is not finite) and becomes 0; a is the newest or the largest of the history;
 *   where a is 0 or amax is not finite the scale stays as it is. largest (n): of each tensor's type.
 * fp8_matmul: y (M,N) = a (M,K) b (N,K)^T * a_inverse * b_inverse + bias (+ y where accumulate is set), sums in f32.
 *   a, b f8e4m3 or f8e5m2, not both f8e5m2; y f32, bf16 or f16; bias (N) y's dtype, absent where y is f32; the inverses
 *   f32 (1). fast: the device may sum with fewer bits. On CUDA K and N divide by 16, from capability 8.9 on. */
#ifndef ZS_OPS_FLOAT8_H
#define ZS_OPS_FLOAT8_H
enum { QUANTIZE_AMAX, QUANTIZE_Y /* optional */, QUANTIZE_Y_T /* optional */, QUANTIZE_X, QUANTIZE_SCALE };
enum { QUANTIZE_ROWS, QUANTIZE_COLS };
enum { FP8_SCALE_SCALE, FP8_SCALE_INVERSE, FP8_SCALE_AMAX, FP8_SCALE_HISTORY /* optional */, FP8_SCALE_LARGEST };
enum { FP8_SCALE_N, FP8_SCALE_LENGTH, FP8_SCALE_OF_LARGEST /* 0: the newest */, FP8_SCALE_MARGIN };
enum { FP8_MATMUL_Y, FP8_MATMUL_A, FP8_MATMUL_B, FP8_MATMUL_A_INVERSE, FP8_MATMUL_B_INVERSE, FP8_MATMUL_BIAS /* optional */ };
enum { FP8_MATMUL_M, FP8_MATMUL_N, FP8_MATMUL_K, FP8_MATMUL_ACCUMULATE, FP8_MATMUL_FAST };
#endif
