// rotary: pairs (d, d + D/2) of each head turned by the angle of their position.
#include <algorithm>

#include "../../ops/attention.h"
#include "floats.h"

namespace zs::cpu {

int32_t rotary(zs_call *call) {
  const int64_t b = integer(call, ROTARY_B), t = integer(call, ROTARY_T), heads = integer(call, ROTARY_H);
  const int64_t d = integer(call, ROTARY_D), half = d / 2, position = integer(call, ROTARY_POSITION);
  const int64_t split = std::min(t, integer(call, ROTARY_SPLIT)), second = integer(call, ROTARY_SECOND);
  const int64_t end = std::max(split + position, split < t ? second + t - split : 0);
  const float sign = integer(call, ROTARY_INVERSE) ? -1.0f : 1.0f;
  const float *table = data<float>(call, ROTARY_TABLE);
  if (d % 2) return fail(call, ZS_BAD_ARGUMENT, "rotary: the head size %ld is odd", static_cast<long>(d));
  if (count_of(call, ROTARY_TABLE) < end * d) {
    return fail(call, ZS_BAD_ARGUMENT, "rotary: positions up to %ld, but the table has %ld", static_cast<long>(end),
                static_cast<long>(d ? count_of(call, ROTARY_TABLE) / d : 0));
  }
  return by_float(call, dtype_of(call, ROTARY_X), [&]<class T>(T) {
    const T *x = data<T>(call, ROTARY_X);
    T *y = data<T>(call, ROTARY_Y);
    parallel_for(call, b * t, row_grain(heads * d), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const int64_t at = r % t;
        const float *cosine = table + (at < split ? position + at : second + at - split) * d, *sine = cosine + half;
        for (int64_t h = 0; h < heads; h++) {
          const T *from = x + (r * heads + h) * d;
          T *to = y + (r * heads + h) * d;
          for (int64_t i = 0; i < half; i++) {
            const float first = to_float(from[i]), second = to_float(from[i + half]), s = sign * sine[i];
            to[i] = from_float<T>(first * cosine[i] - second * s);
            to[i + half] = from_float<T>(second * cosine[i] + first * s);
          }
        }
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
