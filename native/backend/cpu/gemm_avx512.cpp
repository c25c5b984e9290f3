// GEMM's inner loops, 16 floats wide (AVX-512): tiles of 14 x 32 sums in registers.
#include "gemm_kernel.h"

namespace zs::cpu {

extern const GemmKernels gemm_avx512[3] = {gemm_table<16, 14, float>(), gemm_table<16, 14, bf16>(),
                                     gemm_table<16, 14, f16>()};

}  // namespace zs::cpu
