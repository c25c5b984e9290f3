// affine: y = x * mul + add.
#include "../../ops/elementwise.h"
#include "floats.h"

namespace zs::cpu {

int32_t affine(zs_call *call) {
  const float mul = static_cast<float>(call->scalars[0]), add = static_cast<float>(call->scalars[1]);
  return by_float(call, dtype_of(call, AFFINE_X), [&]<class T>(T) {
    const T *x = data<T>(call, AFFINE_X);
    T *y = data<T>(call, AFFINE_Y);
    parallel_for(call, count_of(call, AFFINE_Y), 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) y[i] = from_float<T>(to_float(x[i]) * mul + add);
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
