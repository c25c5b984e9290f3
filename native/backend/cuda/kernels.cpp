// Every kernel that CUDA has. A weak name that is not linked in is NULL, and the core says that this backend lacks it.
#define ZS_CUDA_KERNEL __attribute__((weak))
#include "kernels.h"

#include "backend.h"

namespace zs::cuda {

const zs_kernel kernels[ZS_OP_COUNT] = {
#define ZS_OP(name, outputs, inputs, scalars) name,
#include "../../ops/ops.def"
#undef ZS_OP
};

}  // namespace zs::cuda
