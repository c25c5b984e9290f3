// Random numbers as vectors (contract: native/ops/random.h): W blocks of Philox at a time, 4 W numbers. Only
// operations that IEEE rounds in one way, and no fused ones, so every width gives the same bits, those of
// core/philox.h. Normal values are within 2e-7 of float64 Box-Muller, relative to the radius.
#pragma once
#include <algorithm>

#include "rows.h"
#include "vmath.h"

namespace zs::cpu {
namespace {

template <int W> using vword = typename vector_of<W>::U;
template <int W> ZS_INLINE vword<W> splat_word(uint32_t x) { return x - vword<W>{}; }

// Both halves of the 64-bit products of a with m.
template <int W> ZS_INLINE void multiply(vword<W> a, uint32_t m, vword<W> &high, vword<W> &low) {
#if defined(__AVX512F__)
  if constexpr (W == 16) {
    const __m512i x = (__m512i)a, y = _mm512_set1_epi32(static_cast<int>(m));
    const __m512i even = _mm512_maskz_mul_epu32(0xff, x, y), odd = _mm512_maskz_mul_epu32(0xff, x >> 32, y);
    high = (vword<W>)_mm512_mask_blend_epi32(0xaaaa, even >> 32, odd);
    low = (vword<W>)_mm512_mask_blend_epi32(0xaaaa, even, odd << 32);
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (W == 8) {
    const __m256i x = (__m256i)a, y = _mm256_set1_epi32(static_cast<int>(m));
    const __m256i even = _mm256_mul_epu32(x, y), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), y);
    high = (vword<W>)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    low = (vword<W>)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    return;
  }
#endif
  for (int i = 0; i < W; i++) {
    const uint64_t product = uint64_t{a[i]} * m;
    high[i] = static_cast<uint32_t>(product >> 32);
    low[i] = static_cast<uint32_t>(product);
  }
}

// The words of blocks `block` to `block` + W - 1: words[j] holds word j of each.
template <int W> ZS_INLINE void philox_blocks(uint64_t key, uint64_t block, uint64_t site, vword<W> (&words)[4]) {
  vword<W> c0, c1;
  for (int i = 0; i < W; i++) {
    c0[i] = static_cast<uint32_t>(block + static_cast<uint64_t>(i));
    c1[i] = static_cast<uint32_t>((block + static_cast<uint64_t>(i)) >> 32);
  }
  vword<W> c2 = splat_word<W>(static_cast<uint32_t>(site)), c3 = splat_word<W>(static_cast<uint32_t>(site >> 32));
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
    vword<W> high0, low0, high2, low2;
    multiply<W>(c0, 0xD2511F53, high0, low0);
    multiply<W>(c2, 0xCD9E8D57, high2, low2);
    c0 = high2 ^ c1 ^ k0;
    c1 = low2;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// In (0, 1), exact: 23 bits and a half.
template <int W> ZS_INLINE vfloat<W> vuniform(vword<W> word) {
  using I = typename vector_of<W>::I;
  return (__builtin_convertvector((I)(word >> 9), vfloat<W>) + 0.5f) * 0x1p-23f;
}

// ln x for normal x > 0: x = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh(s), s = (m - 1) / (m + 1) below 0.172.
template <int W> ZS_INLINE vfloat<W> vlog(vfloat<W> x) {
  using F = vfloat<W>;
  using I = typename vector_of<W>::I;
  const I bits = (I)x, e = (bits - 0x3f3504f3) >> 23;
  const F f = (F)(bits - (e << 23)) - 1.0f, s = f / (f + 2.0f), t = s * s;
  F p = t * (1.0f / 9) + 1.0f / 7;
  p = p * t + 1.0f / 5;
  p = p * t + 1.0f / 3;
  return __builtin_convertvector(e, F) * 0.693147180559945f + (2.0f * s + 2.0f * s * (t * p));
}

// cos and sin of 2 pi u, 0 <= u < 1: quarter turns are taken off exactly, the rest (pi/4 at most) is a Taylor sum.
template <int W> ZS_INLINE void vturn(vfloat<W> u, vfloat<W> &cosine, vfloat<W> &sine) {
  using F = vfloat<W>;
  using I = typename vector_of<W>::I;
  const F turns = u * 4.0f, shifted = turns + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const I quarter = (I)shifted;
  const F x = (turns - (shifted - 12582912.0f)) * 1.57079632679489662f, s = x * x;
  F sn = s * 2.755731922398589e-6f - 1.984126984126984e-4f;
  sn = sn * s + 8.333333333333333e-3f;
  sn = sn * s - 1.666666666666667e-1f;
  sn = sn * s * x + x;
  F cs = s * -2.755731922398589e-7f + 2.480158730158730e-5f;
  cs = cs * s - 1.388888888888889e-3f;
  cs = cs * s + 4.166666666666667e-2f;
  cs = cs * s - 0.5f;
  cs = cs * s + 1.0f;
  const I swap = -(quarter & 1), a = (I)cs, b = (I)sn;
  cosine = (F)(((a & ~swap) | (b & swap)) ^ ((quarter + 1) & 2) << 30);
  sine = (F)(((b & ~swap) | (a & swap)) ^ (quarter & 2) << 30);
}

// Four vectors of numbers 0, 1, 2, 3 of W blocks, in the order of their indices.
template <int W> ZS_INLINE void store_blocks(float *y, vfloat<W> (&n)[4]) {
  const vfloat<W> a = Interleave<W>::low(n[0], n[2]), b = Interleave<W>::low(n[1], n[3]);
  const vfloat<W> c = Interleave<W>::high(n[0], n[2]), d = Interleave<W>::high(n[1], n[3]);
  store<W>(y, Interleave<W>::low(a, b));
  store<W>(y + W, Interleave<W>::high(a, b));
  store<W>(y + 2 * W, Interleave<W>::low(c, d));
  store<W>(y + 3 * W, Interleave<W>::high(c, d));
}

template <int W, bool gauss> ZS_INLINE void blocks(float *y, uint64_t seed, uint64_t site, uint64_t block) {
  vword<W> words[4];
  philox_blocks<W>(seed, block, site, words);
  vfloat<W> n[4];
  for (int j = 0; j < 4; j++) n[j] = vuniform<W>(words[j]);
  if constexpr (gauss) {
    for (int j = 0; j < 4; j += 2) {
      const vfloat<W> radius = vsqrt<W>(-2.0f * vlog<W>(n[j]));
      vturn<W>(n[j + 1], n[j], n[j + 1]);
      n[j] *= radius;
      n[j + 1] *= radius;
    }
  }
  store_blocks<W>(y, n);
}

// Numbers first to first + n - 1.
template <int W, bool gauss> void draw(float *y, int64_t n, uint64_t seed, uint64_t site, uint64_t first) {
  constexpr int64_t size = 4 * W;
  float part[size];
  while (n > 0) {
    const int64_t skip = static_cast<int64_t>(first & 3), count = n < size - skip ? n : size - skip;
    if (count == size) {
      blocks<W, gauss>(y, seed, site, first >> 2);
    } else {
      blocks<W, gauss>(part, seed, site, first >> 2);
      memcpy(y, part + skip, sizeof(float) * static_cast<size_t>(count));
    }
    y += count, n -= count, first += static_cast<uint64_t>(count);
  }
}

// Which elements dropout keeps: mask[i] = scale or 0.
template <int W> void kept(float *mask, int64_t n, const Draws &draws, uint64_t index) {
  constexpr int64_t size = 4 * W, chunk = 128;
  float words[chunk + size];
  for (int64_t i = 0; i < n; i += chunk) {
    const uint64_t at = index + static_cast<uint64_t>(i);
    const int64_t m = std::min(chunk, n - i), lead = static_cast<int64_t>(at & 3);
    for (int64_t k = 0; k < lead + m; k += size) {
      vword<W> block[4];
      philox_blocks<W>(draws.seed, (at >> 2) + static_cast<uint64_t>(k / 4), draws.site, block);
      vfloat<W> bits[4];
      for (int j = 0; j < 4; j++) bits[j] = (vfloat<W>)block[j];
      store_blocks<W>(words + k, bits);
    }
    for (int64_t j = 0; j < m; j++) {
      uint32_t word;
      memcpy(&word, words + lead + j, sizeof word);
      mask[i + j] = word >> 8 >= draws.threshold ? draws.scale : 0.0f;
    }
  }
}

}  // namespace
}  // namespace zs::cpu
