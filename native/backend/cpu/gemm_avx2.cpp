// GEMM's inner loops, 8 floats wide (AVX2): tiles of 6 x 16 sums in registers.
#include "gemm_kernel.h"

namespace zs::cpu {

extern const GemmKernels gemm_avx2[3] = {gemm_table<8, 6, float>(), gemm_table<8, 6, bf16>(),
                                     gemm_table<8, 6, f16>()};

}  // namespace zs::cpu
