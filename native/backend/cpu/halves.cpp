// halves.h: bf16 as loops that the compiler widens, f16 with the processor's own conversions where it has them.
#include "halves.h"

#include "clones.h"
#include "cpu.h"
#if defined(ZS_X86)
#include <immintrin.h>
#endif

namespace zs::cpu {

ZS_CLONES void widen_range(float *__restrict y, const bf16 *__restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = to_float(x[i]);
}

ZS_CLONES void narrow_range(bf16 *__restrict y, const float *__restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const uint32_t u = std::bit_cast<uint32_t>(x[i]), rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    y[i].bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : rounded);
  }
}

namespace {
#if defined(ZS_X86)
__attribute__((target("avx,f16c"))) int64_t widen_f16c(float *y, const f16 *x, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i))));
  return i;
}

__attribute__((target("avx,f16c"))) int64_t narrow_f16c(f16 *y, const float *x, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i *>(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  return i;
}
#else
int64_t widen_f16c(float *, const f16 *, int64_t) { return 0; }
int64_t narrow_f16c(f16 *, const float *, int64_t) { return 0; }
#endif
bool has_f16c() { return simd() >= Simd::avx2; }
}  // namespace

void widen_range(float *y, const f16 *x, int64_t n) {
  for (int64_t i = has_f16c() ? widen_f16c(y, x, n) : 0; i < n; i++) y[i] = to_float(x[i]);
}

void narrow_range(f16 *y, const float *x, int64_t n) {
  for (int64_t i = has_f16c() ? narrow_f16c(y, x, n) : 0; i < n; i++) y[i] = to_f16(x[i]);
}

}  // namespace zs::cpu
