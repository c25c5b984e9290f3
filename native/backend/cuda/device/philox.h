// Random numbers on the device: core/philox.h word for word, and what native/ops/random.h makes of the words.
// Bit for bit the CPU's: nothing fused, no approximate function.
#pragma once
#include <algorithm>

#include "exact.h"

namespace zs::cuda {

struct Words { uint32_t at[4]; };

__device__ inline Words philox(uint64_t key, uint64_t counter, uint64_t site) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = static_cast<uint32_t>(site), c3 = static_cast<uint32_t>(site >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high2 = __umulhi(0xCD9E8D57u, c2), low2 = 0xCD9E8D57u * c2;
    c0 = high2 ^ c1 ^ k0;
    c1 = low2;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// What dropout draws from: element `index` is kept where its word >> 8 is at least `threshold`.
struct Draws {
  uint64_t seed, site;
  uint32_t threshold;
  float scale;  // 1 / (1 - p)
};
inline Draws draws_of(float p, uint64_t seed, uint64_t site) {
  uint32_t threshold = static_cast<uint32_t>(std::max(p * 0x1p24f - 2, 0.0f));
  while (threshold < 1u << 24 && (static_cast<float>(threshold) + 0.5f) * 0x1p-24f < p) threshold++;
  return {seed, site, threshold, 1 / (1 - p)};
}

// Word number `word` without an indexed array, which would live in memory.
__device__ inline uint32_t pick(const Words &w, uint32_t word) {
  const uint32_t low = word & 1 ? w.at[1] : w.at[0], high = word & 1 ? w.at[3] : w.at[2];
  return word & 2 ? high : low;
}

// The draws of elements that follow each other: a block of four words is computed once.
class Draw {
 public:
  __device__ explicit Draw(const Draws &draws) : draws_(draws) {}
  // draws.scale, or 0 where the element is dropped.
  __device__ float operator()(uint64_t index) {
    if (index >> 2 != block_) words_ = philox(draws_.seed, block_ = index >> 2, draws_.site);
    return pick(words_, static_cast<uint32_t>(index & 3)) >> 8 >= draws_.threshold ? draws_.scale : 0.0f;
  }

 private:
  const Draws &draws_;
  uint64_t block_ = ~uint64_t{0};
  Words words_{};
};

// In (0, 1), exact: 23 bits and a half.
__device__ inline Exact uniform(uint32_t word) { return (Exact(static_cast<float>(word >> 9)) + 0.5f) * 0x1p-23f; }

// ln x for normal x > 0: x = 2^e m, m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m + 1)).
__device__ inline Exact log_exact(Exact x) {
  const int32_t bits = static_cast<int32_t>(__float_as_uint(x)), e = (bits - 0x3f3504f3) >> 23;
  const Exact f = Exact(__uint_as_float(static_cast<uint32_t>(bits) - (static_cast<uint32_t>(e) << 23))) - 1.0f;
  const Exact s = f / (f + 2.0f), t = s * s;
  Exact p = t * (1.0f / 9) + 1.0f / 7;
  p = p * t + 1.0f / 5;
  p = p * t + 1.0f / 3;
  return Exact(static_cast<float>(e)) * 0.693147180559945f + (2.0f * s + 2.0f * s * (t * p));
}

// cos and sin of 2 pi u: quarter turns are taken off exactly, the rest is a Taylor sum.
__device__ inline void turn(Exact u, float &cosine, float &sine) {
  const Exact turns = u * 4.0f, shifted = turns + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const uint32_t quarter = __float_as_uint(shifted);
  const Exact x = (turns - (shifted - 12582912.0f)) * 1.57079632679489662f, s = x * x;
  Exact sn = s * 2.755731922398589e-6f - 1.984126984126984e-4f;
  sn = sn * s + 8.333333333333333e-3f;
  sn = sn * s - 1.666666666666667e-1f;
  sn = sn * s * x + x;
  Exact cs = s * -2.755731922398589e-7f + 2.480158730158730e-5f;
  cs = cs * s - 1.388888888888889e-3f;
  cs = cs * s + 4.166666666666667e-2f;
  cs = cs * s - 0.5f;
  cs = cs * s + 1.0f;
  const uint32_t a = __float_as_uint(quarter & 1 ? sn : cs), b = __float_as_uint(quarter & 1 ? cs : sn);
  cosine = __uint_as_float(a ^ ((quarter + 1) & 2) << 30);
  sine = __uint_as_float(b ^ (quarter & 2) << 30);
}

}  // namespace zs::cuda
