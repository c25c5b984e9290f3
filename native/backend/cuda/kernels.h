// The kernels of CUDA: `int32_t NAME(zs_call *)` in namespace zs::cuda for each line of ops.def, which launches on
// call->stream and returns. kernels.cpp makes the table; an operation that no file defines is NULL in it.
#pragma once
#include "../backend.h"

#ifndef ZS_CUDA_KERNEL
#define ZS_CUDA_KERNEL
#endif

namespace zs::cuda {

#define ZS_OP(name, outputs, inputs, scalars) ZS_CUDA_KERNEL int32_t name(zs_call *call);
#include "../../ops/ops.def"
#undef ZS_OP

}  // namespace zs::cuda
