// GEMM in bf16 where the machine multiplies pairs (vdpbf16ps): a slot holds two consecutive k of one line.
#include "gemm_kernel.h"

namespace zs::cpu {
namespace {

// Slots of two lines of k that follow each other.
template <int W> ZS_INLINE void join(const bf16 *first, const bf16 *second, float *to) {
  using Pairs = typename vector_of<W>::U;
  typename vector_of<W>::H even, odd;
  memcpy(&even, first, sizeof even);
  memcpy(&odd, second, sizeof odd);
  const Pairs slots = __builtin_convertvector(even, Pairs) | __builtin_convertvector(odd, Pairs) << 16;
  memcpy(to, &slots, sizeof slots);
}

// Lines of k are transposed as 32-bit pairs; an odd last k is completed with 0.
void pack_pairs(const void *from, int64_t row, bool k_contiguous, int count, int64_t num_k, int width, float *panel) {
  const bf16 *source = static_cast<const bf16 *>(from);
  if (k_contiguous) {
    // A slot is loaded as if it were an f32; no arithmetic touches it.
    struct Slots {
      static ZS_INLINE vfloat<16> take(const bf16 *p, int64_t k) {
        bf16 part[32] = {};
        for (int64_t i = 0; i < k && i < 32; i++) part[i] = p[i];
        vfloat<16> v;
        memcpy(&v, part, sizeof v);
        return v;
      }
    };
    for (int64_t k = 0; k < num_k; k += 32) {
      const int64_t left = num_k - k < 32 ? num_k - k : 32;
      for (int j = 0; j < width; j += 16) {
        vfloat<16> rows[16];
        for (int i = 0; i < 16; i++) {
          const bf16 *line = source + (j + i) * row + k;
          if (j + i >= count) rows[i] = vfloat<16>{};
          else if (left == 32) __builtin_prefetch(line + 128), memcpy(&rows[i], line, sizeof rows[i]);
          else rows[i] = Slots::take(line, left);
        }
        transpose<16>(rows);
        const size_t keep = static_cast<size_t>(width - j < 16 ? width - j : 16);
        float *to = panel + k / 2 * width + j;
        for (int i = 0; i < (left + 1) / 2; i++, to += width) {
          if (keep == 16 || width < 16) store<16>(to, rows[i]);
          else memcpy(to, &rows[i], sizeof(float) * keep);
        }
      }
    }
    return;
  }
  for (int64_t k = 0; k < num_k; k += 2, source += 2 * row, panel += width) {
    const bool pair = k + 1 < num_k;
    int j = 0;
    for (; pair && j + 16 <= count; j += 16) join<16>(source + j, source + row + j, panel + j);
    if (pair && count - j >= 8) {  // a rest of more than half a vector: two halves that overlap
      join<8>(source + j, source + row + j, panel + j);
      j = count;
      join<8>(source + j - 8, source + row + j - 8, panel + j - 8);
    }
    for (; j < width; j++) {
      uint32_t even = j < count ? source[j].bits : 0, odd = pair && j < count ? source[row + j].bits : 0;
      uint32_t slot = even | odd << 16;
      memcpy(panel + j, &slot, sizeof slot);
    }
  }
}

template <int R>
void tile_pairs(int64_t slots, int width, const float *a, const float *b, float *c, int64_t c_row, bool add) {
  vfloat<16> sums[R][2] = {};
  for (int64_t k = 0; k < slots; k++, a += width, b += 32) {
    __m512bh b0, b1;
    memcpy(&b0, b, sizeof b0);
    memcpy(&b1, b + 16, sizeof b1);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      uint32_t slot;
      memcpy(&slot, a + i, sizeof slot);
      __m512bh ai = (__m512bh)_mm512_set1_epi32(static_cast<int>(slot));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], ai, b0);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], ai, b1);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++, c += c_row) {
    if (add) sums[i][0] += load<16>(c), sums[i][1] += load<16>(c + 16);
    store<16>(c, sums[i][0]);
    store<16>(c + 16, sums[i][1]);
  }
}

template <int R = 14>
void tile_bf16(int rows, int64_t slots, const float *a, const float *b, float *c, int64_t c_row, bool add) {
  if (rows == R) return tile_pairs<R>(slots, 14, a, b, c, c_row, add);
  if constexpr (R > 1) tile_bf16<R - 1>(rows, slots, a, b, c, c_row, add);
}

}  // namespace

extern const GemmKernels gemm_avx512bf16 = {14, 32, 2, pack_pairs, tile_bf16<14>, few_rows<16, bf16>,
                                            finish<16, float, bf16>, finish<16, bf16, bf16>};

}  // namespace zs::cpu
