// Row primitives, 4 floats wide, and the choice between the widths.
#include "cpu.h"
#include "rows_kernel.h"

namespace zs::cpu {

extern const RowKernels rows_portable = row_table<4>();

const RowKernels &row_kernels() {
#if defined(ZS_X86)
  if (simd() >= Simd::avx512) return rows_avx512;
  if (simd() == Simd::avx2) return rows_avx2;
#endif
  return rows_portable;
}

}  // namespace zs::cpu
