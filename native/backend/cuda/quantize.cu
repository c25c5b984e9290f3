// quantize: 8-bit codes, their transpose and the largest absolute value in one pass over x. Without the transpose 8
// elements a thread; with it tiles of 64 x 64 go through shared memory, so that both copies are written by 8 and 16 bytes.
// Codes come from the cvt instruction where the device has it (8.9 on), else from integer arithmetic: the same bits.
#include "../float8.h"
#include "device/launch.h"
#include "device/reduce.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {

constexpr int kEach = 8, kTile = 64, kStride = kTile + 4;  // the stride keeps columns on different banks

template <class F> __device__ inline uint32_t pair_by_integers(float low, float high) {
  return to_code<F>(__float_as_uint(low)) | static_cast<uint32_t>(to_code<F>(__float_as_uint(high))) << 8;
}

// Two codes in the low 16 bits.
template <class F> __device__ inline uint32_t code_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  constexpr uint32_t exponent = 0x7f800000u;  // all ones: not finite, where the instruction would saturate
  if ((__float_as_uint(low) & exponent) != exponent && (__float_as_uint(high) & exponent) != exponent) {
    uint16_t pair;
    if constexpr (std::is_same_v<F, f8e4m3>) asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    else asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    return pair;
  }
#endif
  return pair_by_integers<F>(low, high);
}

// Codes of 8 elements, of which n count (the others are 0), and the largest of their absolute values as bits.
template <class F> __device__ inline uint2 codes_of(const Floats<kEach> &x, float scale, uint32_t &top) {
  uint32_t word[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < kEach; i += 2) {
    word[i / 4] |= code_pair<F>(__fmul_rn(x.at[i], scale), __fmul_rn(x.at[i + 1], scale)) << (i % 4 * 8);
#pragma unroll
    for (int j = i; j < i + 2; j++) {
      const uint32_t bits = __float_as_uint(x.at[j]) & 0x7fffffffu;
      top = bits > top ? bits : top;
    }
  }
  return make_uint2(word[0], word[1]);
}
__device__ inline uint8_t code_at(uint2 codes, int i) { return static_cast<uint8_t>((i < 4 ? codes.x : codes.y) >> (i % 4 * 8)); }

template <bool V> __device__ inline void store_codes(uint8_t *y, uint2 codes, int n) {
  if (V && n >= kEach) {
    *reinterpret_cast<uint2 *>(y) = codes;
    return;
  }
#pragma unroll
  for (int i = 0; i < kEach; i++)
    if (i < n) y[i] = code_at(codes, i);
}

__device__ inline void tell_largest(float *amax, uint32_t top, uint32_t *buffer) {
  top = block_reduce(top, Max{}, buffer);
  if (threadIdx.x != 0) return;
  atomicAnd(reinterpret_cast<uint32_t *>(amax), 0x7fffffffu);
  atomicMax(reinterpret_cast<uint32_t *>(amax), top);
}

template <class T, class F, bool V>
__global__ void __launch_bounds__(kThreads) quantize_kernel(float *amax, uint8_t *y, const T *x, const float *scale, int64_t count) {
  __shared__ uint32_t buffer[32];
  const float by = scale[0];
  uint32_t top = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kEach;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEach; i < count; i += step) {
    const int n = count - i < kEach ? static_cast<int>(count - i) : kEach;
    store_codes<V>(y + i, codes_of<F>(load<V, kEach>(x + i, n), by, top), n);
  }
  tell_largest(amax, top, buffer);
}

// V: rows of x, y and y_t begin at multiples of 16 bytes.
template <class T, class F, bool V>
__global__ void __launch_bounds__(kThreads)
quantize_tiles_kernel(float *amax, uint8_t *y, uint8_t *y_t, const T *x, const float *scale, int64_t rows, int64_t cols, int64_t tiles) {
  __shared__ uint32_t buffer[32];
  __shared__ uint32_t tile_words[kTile * kStride / 4];  // by column
  uint8_t *tile = reinterpret_cast<uint8_t *>(tile_words);
  const float by = scale[0];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t across = (cols + kTile - 1) / kTile, padded_rows = padded(rows);
  uint32_t top = 0;
  for (int64_t b = blockIdx.x; b < tiles; b += gridDim.x) {
    const int64_t r0 = b / across * kTile, c0 = b % across * kTile, c = c0 + thread % 8 * kEach;
    const int n = cols - c >= kEach ? kEach : cols > c ? static_cast<int>(cols - c) : 0;
    for (int line = thread / 8; line < kTile; line += kThreads / 8) {
      const int64_t r = r0 + line;
      uint2 codes = make_uint2(0, 0);
      if (r < rows && n > 0) {
        codes = codes_of<F>(load<V, kEach>(x + r * cols + c, n), by, top);
        if (y) store_codes<V>(y + r * cols + c, codes, n);
      }
#pragma unroll
      for (int i = 0; i < kEach; i++) tile[(thread % 8 * kEach + i) * kStride + line] = code_at(codes, i);
    }
    __syncthreads();
    const int column = thread / 4, first = thread % 4 * 16;
    if (c0 + column < cols && r0 + first < padded_rows) {
      const uint32_t *words = tile_words + (column * kStride + first) / 4;
      uint8_t *to = y_t + (c0 + column) * padded_rows + r0 + first;
      if (V) *reinterpret_cast<uint4 *>(to) = make_uint4(words[0], words[1], words[2], words[3]);
      else for (int i = 0; i < 16; i++) to[i] = tile[column * kStride + first + i];
    }
    __syncthreads();
  }
  tell_largest(amax, top, buffer);
}

}  // namespace

int32_t quantize(zs_call *call) {
  const int dtype = check_quantize(call);
  if (dtype < 0) return ZS_BAD_ARGUMENT;
  const int64_t rows = integer(call, QUANTIZE_ROWS), cols = integer(call, QUANTIZE_COLS), count = rows * cols;
  if (count == 0) return ZS_OK;
  float *amax = data<float>(call, QUANTIZE_AMAX);
  const float *scale = data<float>(call, QUANTIZE_SCALE);
  uint8_t *y = data<uint8_t>(call, QUANTIZE_Y), *y_t = data<uint8_t>(call, QUANTIZE_Y_T);
  const bool vectors = aligned(call, {QUANTIZE_X, QUANTIZE_Y, QUANTIZE_Y_T}) && (!y_t || cols % 16 == 0);
  return by_float(call, dtype_of(call, QUANTIZE_X), [&]<class T>(T) {
    return by_float8(call, dtype, [&]<class F>(F) {
      return by_flag(vectors, [&](auto v) {
        const T *x = data<T>(call, QUANTIZE_X);
        if (!y_t)
          return launch(call, quantize_kernel<T, F, v.value>, resident(call, ceil_div(count, kThreads * kEach)), kThreads, 0, amax, y, x,
                        scale, count);
        const int64_t tiles = ceil_div(rows, kTile) * ceil_div(cols, kTile);
        return launch(call, quantize_tiles_kernel<T, F, v.value>, resident(call, tiles), kThreads, 0, amax, y, y_t, x, scale, rows, cols,
                      tiles);
      });
    });
  });
}

}  // namespace zs::cuda
