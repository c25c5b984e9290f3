// Row primitives, 8 floats wide.
#include "rows_kernel.h"

namespace zs::cpu {
extern const RowKernels rows_avx2 = row_table<8>();
}  // namespace zs::cpu
