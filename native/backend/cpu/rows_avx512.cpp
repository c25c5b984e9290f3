// Row primitives, 16 floats wide.
#include "rows_kernel.h"

namespace zs::cpu {
extern const RowKernels rows_avx512 = row_table<16>();
}  // namespace zs::cpu
