// swiglu_forward, swiglu_backward: silu(gate) * up.
#include "../../ops/elementwise.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {

int32_t swiglu_forward(zs_call *call) {
  return by_float(call, dtype_of(call, SWIGLU_GATE), [&]<class T>(T) {
    const T *gate = data<T>(call, SWIGLU_GATE), *up = data<T>(call, SWIGLU_UP);
    T *y = data<T>(call, SWIGLU_Y);
    parallel_for(call, count_of(call, SWIGLU_Y), 4096, [&](int64_t begin, int64_t end) {
      row_kernels().activations[dtype_of(call, SWIGLU_GATE)].swiglu(y + begin, gate + begin, up + begin, end - begin);
    });
    return int32_t{ZS_OK};
  });
}

int32_t swiglu_backward(zs_call *call) {
  return by_float(call, dtype_of(call, SWIGLU_BACKWARD_DY), [&]<class T>(T) {
    const T *dy = data<T>(call, SWIGLU_BACKWARD_DY), *gate = data<T>(call, SWIGLU_BACKWARD_GATE), *up = data<T>(call, SWIGLU_BACKWARD_UP);
    T *dgate = data<T>(call, SWIGLU_DGATE), *dup = data<T>(call, SWIGLU_DUP);
    parallel_for(call, count_of(call, SWIGLU_DGATE), 4096, [&](int64_t begin, int64_t end) {
      row_kernels().activations[dtype_of(call, SWIGLU_BACKWARD_DY)].swiglu_slope(dgate + begin, dup + begin, dy + begin, gate + begin,
                                                                               up + begin, end - begin);
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
