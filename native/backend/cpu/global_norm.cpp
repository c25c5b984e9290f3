// absmax, sum_squares, norm_finish: a norm whose bits don't depend on order or cut (see native/ops/optimizer.h).
#include <atomic>
#include <cmath>

#include "../../ops/optimizer.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
namespace {
int exponent_of(float largest) {
  int e;
  std::frexp(largest, &e);  // largest < 2^e
  return e - 1;
}
}  // namespace

int32_t absmax(zs_call *call) {
  float *y = data<float>(call, ABSMAX_Y);
  // As bits, absolute values order like integers, NaN above infinity.
  std::atomic<uint32_t> top{std::bit_cast<uint32_t>(std::fabs(y[0]))};
  int32_t status = by_float(call, dtype_of(call, ABSMAX_X), [&]<class T>(T) {
    const T *x = data<T>(call, ABSMAX_X);
    parallel_for(call, count_of(call, ABSMAX_X), 65536, [&](int64_t begin, int64_t end) {
      const uint32_t here = row_kernels().gradients[dtype_of(call, ABSMAX_X)].absmax(x + begin, end - begin);
      uint32_t known = top.load();
      while (here > known && !top.compare_exchange_weak(known, here)) {}
    });
    return int32_t{ZS_OK};
  });
  y[0] = std::bit_cast<float>(top.load());
  return status;
}

int32_t sum_squares(zs_call *call) {
  const float largest = data<float>(call, SUM_SQUARES_ABSMAX)[0];
  if (largest == 0 || !std::isfinite(largest)) return ZS_OK;
  const int e = 2 * exponent_of(largest) + 2;
  // Scaled to [0, 2^22]: the high level counts units of 1, the low one units of 2^-22.
  // e is even, and so is 22 - e: the root of the scale is a power of two, and products with it are exact.
  const double scale = std::ldexp(1.0, (22 - e) / 2);
  std::atomic<int64_t> high{0}, low{0};
  int32_t status = by_float(call, dtype_of(call, SUM_SQUARES_X), [&]<class T>(T) {
    const T *x = data<T>(call, SUM_SQUARES_X);
    parallel_for(call, count_of(call, SUM_SQUARES_X), 16384, [&](int64_t begin, int64_t end) {
      int64_t h = 0, l = 0;
      row_kernels().gradients[dtype_of(call, SUM_SQUARES_X)].squares(x + begin, end - begin, scale, &h, &l);
      high += h;
      low += l;
    });
    return int32_t{ZS_OK};
  });
  int64_t *sum = data<int64_t>(call, SUM_SQUARES_Y);
  sum[0] += high;
  sum[1] += low;
  return status;
}

int32_t norm_finish(zs_call *call) {
  const float largest = data<float>(call, NORM_FINISH_ABSMAX)[0];
  float *y = data<float>(call, NORM_FINISH_Y);
  if (largest == 0 || !std::isfinite(largest)) {
    y[0] = largest;
    return ZS_OK;
  }
  const int e = 2 * exponent_of(largest) + 2;
  const int64_t *sum = data<int64_t>(call, NORM_FINISH_SUM);
  const double total = static_cast<double>(sum[0]) + static_cast<double>(sum[1]) / 4194304.0;
  y[0] = static_cast<float>(std::sqrt(total) * std::sqrt(std::ldexp(1.0, e - 22)));
  return ZS_OK;
}

}  // namespace zs::cpu
