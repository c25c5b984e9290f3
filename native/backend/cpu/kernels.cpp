// Every kernel that the CPU has: one function per line of ops.def, named as the operation. A kernel
// that is not linked in is NULL in the table, and the core says that this backend lacks it.
#include "backend.h"

namespace zs::cpu {

#define ZS_OP(name, outputs, inputs, scalars) int32_t name(zs_call *call);
#include "../../ops/ops.def"
#undef ZS_OP

const zs_kernel kernels[ZS_OP_COUNT] = {
#define ZS_OP(name, outputs, inputs, scalars) name,
#include "../../ops/ops.def"
#undef ZS_OP
};

}  // namespace zs::cpu
