// GEMM's inner loops, four floats wide: for any CPU: tiles of 6 x 8 sums in registers.
#include "gemm_kernel.h"

namespace zs::cpu {

extern const GemmKernels gemm_portable[3] = {gemm_table<4, 6, float>(), gemm_table<4, 6, bf16>(),
                                        gemm_table<4, 6, f16>()};

}  // namespace zs::cpu
