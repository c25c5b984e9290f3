// rotary: pairs (d, d + D/2) of each head turned by the angle of their position. A thread takes 16 bytes of the first
// half and their partners of the second, so y may be x; the table stays in the caches.
#include "../../ops/attention.h"
#include "device/launch.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {
template <class T, bool V> struct Rotary {
  static constexpr int N = kPack<T>;
  T *y;
  const T *x;
  const float *table;
  int64_t t, heads, half, packs, position, split, second;  // packs: per half of a head
  float sign;

  __device__ void operator()(int64_t i, int) const {
    const int64_t head = i / packs, c = (i - head * packs) * N, at = head / heads % t;
    const int n = half - c < N ? static_cast<int>(half - c) : N;
    const float *cosine = table + (at < split ? position + at : second + at - split) * 2 * half + c;
    const int64_t from = head * 2 * half + c;
    const Floats<N> a = load<V, N>(x + from, n), b = load<V, N>(x + from + half, n);
    const Floats<N> cs = load<V, N>(cosine, n), sn = load<V, N>(cosine + half, n);
    Floats<N> first, later;
#pragma unroll
    for (int j = 0; j < N; j++) {
      const float s = sign * sn.at[j];
      first.at[j] = a.at[j] * cs.at[j] - b.at[j] * s;
      later.at[j] = b.at[j] * cs.at[j] + a.at[j] * s;
    }
    store<V>(y + from, first, n);
    store<V>(y + from + half, later, n);
  }
};
}  // namespace

int32_t rotary(zs_call *call) {
  const int64_t b = integer(call, ROTARY_B), t = integer(call, ROTARY_T), heads = integer(call, ROTARY_H);
  const int64_t d = integer(call, ROTARY_D), half = d / 2, position = integer(call, ROTARY_POSITION);
  const int64_t split = std::min(t, integer(call, ROTARY_SPLIT)), second = integer(call, ROTARY_SECOND);
  const int64_t end = std::max(split + position, split < t ? second + t - split : 0);
  if (d % 2) return fail(call, ZS_BAD_ARGUMENT, "rotary: the head size %ld is odd", static_cast<long>(d));
  if (count_of(call, ROTARY_TABLE) < end * d) {
    return fail(call, ZS_BAD_ARGUMENT, "rotary: positions up to %ld, but the table has %ld", static_cast<long>(end),
                static_cast<long>(d ? count_of(call, ROTARY_TABLE) / d : 0));
  }
  return by_float(call, dtype_of(call, ROTARY_X), [&]<class T>(T) {
    const bool wide = aligned(call, {ROTARY_Y, ROTARY_X, ROTARY_TABLE}) && half % kPack<T> == 0;
    return by_flag(wide, [&](auto v) {
      const int64_t packs = ceil_div(half, kPack<T>);
      const Rotary<T, v.value> body{data<T>(call, ROTARY_Y), data<T>(call, ROTARY_X), data<float>(call, ROTARY_TABLE), t, heads, half,
                                    packs, position, split, second, integer(call, ROTARY_INVERSE) ? -1.0f : 1.0f};
      return run_packs<1>(call, b * t * heads * packs, body);
    });
  });
}

}  // namespace zs::cuda
