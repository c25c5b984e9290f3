// The widest vectors that this machine, and ZS_SIMD, allow.
#include <cstdlib>
#include <cstring>

#include "cpu.h"

namespace zs::cpu {

namespace {

Simd detect() {
#ifdef ZS_X86
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("f16c");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return Simd::avx512bf16;
  if (avx512) return Simd::avx512;
  if (avx2) return Simd::avx2;
#endif
  return Simd::scalar;
}

Simd choose() {
  Simd best = detect();
  const char *wanted = getenv("ZS_SIMD");
  if (!wanted) return best;
  const char *names[] = {"scalar", "avx2", "avx512", "avx512bf16"};
  for (int level = 0; level < 4; level++)
    if (strcmp(wanted, names[level]) == 0 && static_cast<Simd>(level) < best)
      return static_cast<Simd>(level);
  return best;
}

}  // namespace

Simd simd() {
  static const Simd level = choose();
  return level;
}

}  // namespace zs::cpu
