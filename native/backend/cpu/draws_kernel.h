// Which elements dropout keeps, in vectors: core/philox.h with one block of four words in each 64-bit lane.
// The same bits as the scalar form in random.cpp at every width.
#pragma once
#include <algorithm>

#include "rows.h"
#include "vmath.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace zs::cpu {
namespace {

template <int W> struct lanes64 { typedef uint64_t V __attribute__((vector_size(W * 4))); };

// Product of the lower halves of the lanes; what the upper halves hold does not matter.
template <int W> ZS_INLINE typename lanes64<W>::V multiply_low(typename lanes64<W>::V a, typename lanes64<W>::V b) {
  using V = typename lanes64<W>::V;
#if defined(__AVX512F__)
  if constexpr (W == 16) return (V)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#endif
#if defined(__AVX2__)
  if constexpr (W == 8) return (V)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#endif
#if defined(__SSE2__)
  if constexpr (W == 4) return (V)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
  return (a & 0xffffffffu) * (b & 0xffffffffu);
}

// The 2 W words of the blocks from `first` on.
template <int W> ZS_INLINE void philox_words(uint32_t *words, uint64_t seed, uint64_t first, uint64_t site) {
  using V = typename lanes64<W>::V;
  V counter{};
  for (int i = 0; i < W / 2; i++) counter[i] = static_cast<uint64_t>(i);
  counter += first;
  V c0 = counter, c1 = counter >> 32, c2 = site - V{}, c3 = (site >> 32) - V{};
  const V m0 = uint64_t{0xD2511F53} - V{}, m1 = uint64_t{0xCD9E8D57} - V{};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const V a = multiply_low<W>(m0, c0), b = multiply_low<W>(m1, c2);
    c0 = (b >> 32) ^ c1 ^ uint64_t{k0};
    c1 = b;
    c2 = (a >> 32) ^ c3 ^ uint64_t{k1};
    c3 = a;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  // Two words of a block in one lane, the earlier in the lower half (little-endian); blocks go out one after the other.
  const V low = (c0 & 0xffffffffu) | c1 << 32, high = (c2 & 0xffffffffu) | c3 << 32;
  V out[2];
  for (int i = 0; i < W / 2; i++) {
    out[2 * i / (W / 2)][2 * i % (W / 2)] = low[i];
    out[2 * i / (W / 2)][2 * i % (W / 2) + 1] = high[i];
  }
  memcpy(words, out, sizeof out);
}

template <int W> void kept(float *mask, int64_t n, const Draws &draws, uint64_t index) {
  constexpr int64_t kChunk = 128;
  uint32_t words[kChunk + 4 * W];
  for (int64_t i = 0; i < n; i += kChunk) {
    const uint64_t at = index + static_cast<uint64_t>(i);
    const int64_t m = std::min(kChunk, n - i), lead = static_cast<int64_t>(at & 3);
    for (int64_t k = 0; k < lead + m; k += 2 * W) {
      philox_words<W>(words + k, draws.seed, (at >> 2) + static_cast<uint64_t>(k / 4), draws.site);
    }
    for (int64_t j = 0; j < m; j++) mask[i + j] = words[lead + j] >> 8 >= draws.threshold ? draws.scale : 0.0f;
  }
}

}  // namespace
}  // namespace zs::cpu
