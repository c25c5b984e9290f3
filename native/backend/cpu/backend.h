// The CPU as a backend: host memory and the kernels of kernels.cpp.
#pragma once
#include "../backend.h"

namespace zs::cpu {

extern const zs_kernel kernels[ZS_OP_COUNT];
const zs_backend &backend();

}  // namespace zs::cpu
