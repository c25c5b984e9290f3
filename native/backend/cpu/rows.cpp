// Row primitives, 4 floats wide, and the choice between the widths.
#include <algorithm>

#include "cpu.h"
#include "rows_kernel.h"

namespace zs::cpu {

extern const RowKernels rows_portable = row_table<4>();

Draws draws_of(float p, uint64_t seed, uint64_t site) {
  uint32_t threshold = static_cast<uint32_t>(std::max(p * 0x1p24f - 2, 0.0f));
  while (threshold < 1u << 24 && (static_cast<float>(threshold) + 0.5f) * 0x1p-24f < p) threshold++;
  return {seed, site, threshold, 1 / (1 - p)};
}

const RowKernels &row_kernels() {
#if defined(ZS_X86)
  if (simd() >= Simd::avx512) return rows_avx512;
  if (simd() == Simd::avx2) return rows_avx2;
#endif
  return rows_portable;
}

}  // namespace zs::cpu
