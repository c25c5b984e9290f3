// swiglu_forward, swiglu_backward: silu(gate) * up.
#include <cmath>

#include "../../ops/elementwise.h"
#include "floats.h"

namespace zs::cpu {

int32_t swiglu_forward(zs_call *call) {
  return by_float(call, dtype_of(call, SWIGLU_GATE), [&]<class T>(T) {
    const T *gate = data<T>(call, SWIGLU_GATE), *up = data<T>(call, SWIGLU_UP);
    T *y = data<T>(call, SWIGLU_Y);
    parallel_for(call, count_of(call, SWIGLU_Y), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        float g = to_float(gate[i]);
        y[i] = from_float<T>(g / (1 + std::exp(-g)) * to_float(up[i]));
      }
    });
    return int32_t{ZS_OK};
  });
}

int32_t swiglu_backward(zs_call *call) {
  return by_float(call, dtype_of(call, SWIGLU_BACKWARD_DY), [&]<class T>(T) {
    const T *dy = data<T>(call, SWIGLU_BACKWARD_DY), *gate = data<T>(call, SWIGLU_BACKWARD_GATE), *up = data<T>(call, SWIGLU_BACKWARD_UP);
    T *dgate = data<T>(call, SWIGLU_DGATE), *dup = data<T>(call, SWIGLU_DUP);
    parallel_for(call, count_of(call, SWIGLU_DGATE), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        float g = to_float(gate[i]), u = to_float(up[i]), d = to_float(dy[i]), s = 1 / (1 + std::exp(-g));
        dgate[i] = from_float<T>(d * u * s * (1 + g * (1 - s)));
        dup[i] = from_float<T>(d * g * s);
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
