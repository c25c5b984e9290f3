// What is wrong with a call of matmul, whichever backend has it.
#pragma once
#include "../ops/matmul.h"
#include "call.h"

namespace zs {

inline int32_t check_matmul(zs_call *call, int64_t m, int64_t n, int epilogue, bool accumulate) {
  const zs_tensor *t = call->tensors;
  const int a = t[MATMUL_A].dtype, y = t[MATMUL_Y].dtype;
  const bool gelu = epilogue == EPILOGUE_GELU_TANH || epilogue == EPILOGUE_GELU_ERF;
  const bool dgelu = epilogue == EPILOGUE_DGELU_TANH || epilogue == EPILOGUE_DGELU_ERF;
  if (a < ZS_F32 || a > ZS_F16 || t[MATMUL_B].dtype != a || (y != ZS_F32 && y != a))
    return fail(call, ZS_UNSUPPORTED, "matmul: dtypes a %d, b %d, y %d", a, t[MATMUL_B].dtype, y);
  if (accumulate && gelu) return fail(call, ZS_BAD_ARGUMENT, "matmul: accumulate excludes GELU");
  if (dgelu && present(call, MATMUL_BIAS)) return fail(call, ZS_BAD_ARGUMENT, "matmul: dGELU excludes a bias");
  if (dgelu && m > 0 && n > 0 && !present(call, MATMUL_PRE_IN))
    return fail(call, ZS_BAD_ARGUMENT, "matmul: dGELU needs pre_in");
  return ZS_OK;
}

}  // namespace zs
