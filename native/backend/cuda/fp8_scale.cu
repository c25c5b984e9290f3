// fp8_scale: a block for each tensor, whose history moves on by one place in pieces from its end.
#include <cmath>

#include "../float8.h"
#include "device/launch.h"
#include "device/reduce.h"

namespace zs::cuda {
namespace {

struct Scales {
  float *scale, *inverse, *amax, *history;
  const float *largest;
  int64_t length;
  bool of_largest;
  float factor;
};

__global__ void __launch_bounds__(kThreads) fp8_scale_kernel(Scales s) {
  __shared__ float buffer[32];
  const int64_t i = blockIdx.x, thread = threadIdx.x;
  const float now = s.amax[i];
  const bool finite = now <= 3.402823466e38f;  // not so for NaN
  float a = now;
  if (s.history && finite) {
    float *history = s.history + i * s.length;
    for (int64_t first = (s.length - 1) / kThreads * kThreads; first >= 0; first -= kThreads) {
      const int64_t at = first + thread;
      const float value = at == 0 ? now : at < s.length ? history[at - 1] : 0;
      __syncthreads();  // all have read before any writes
      if (at < s.length) history[at] = value;
      a = fmaxf(a, value);
    }
    a = s.of_largest ? block_reduce(a, Max{}, buffer) : now;
  }
  __syncthreads();
  if (thread != 0) return;
  if (s.history) s.amax[i] = 0;
  if (s.history && !(finite && has_scale(a))) return;
  const float scale = has_scale(a) ? scale_of(a, s.largest[i], s.factor) : 1.0f;
  s.scale[i] = scale;
  s.inverse[i] = __fdiv_rn(1.0f, scale);
}

}  // namespace

int32_t fp8_scale(zs_call *call) {
  const int64_t n = integer(call, FP8_SCALE_N);
  if (n == 0) return ZS_OK;
  const Scales scales{data<float>(call, FP8_SCALE_SCALE),   data<float>(call, FP8_SCALE_INVERSE),
                      data<float>(call, FP8_SCALE_AMAX),    data<float>(call, FP8_SCALE_HISTORY),
                      data<float>(call, FP8_SCALE_LARGEST), integer(call, FP8_SCALE_LENGTH),
                      integer(call, FP8_SCALE_OF_LARGEST) != 0, std::ldexp(1.0f, -static_cast<int>(integer(call, FP8_SCALE_MARGIN)))};
  return launch(call, fp8_scale_kernel, static_cast<unsigned>(n), kThreads, 0, scales);
}

}  // namespace zs::cuda
