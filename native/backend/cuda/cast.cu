// cast: any pair of dtypes. Between floating-point types by 16 bytes of the narrower one; where an integer or
// 8-bit type takes part, element by element (those tensors are small).
#include "device/copy.h"
#include "device/launch.h"
#include "device/vector.h"
#include "../../ops/elementwise.h"
#include "../float8.h"

namespace zs::cuda {
namespace {
template <class X, class Y, bool V> struct CastFloat {
  static constexpr int N = kPack<Y> > kPack<X> ? kPack<Y> : kPack<X>;
  Y *y;
  const X *x;
  __device__ void operator()(int64_t i, int n) const { store<V>(y + i, load<V, N>(x + i, n), n); }
};

template <class T> constexpr bool is_float = std::is_same_v<T, float> || is_half<T>;

// The number itself, or f32 for a type that is storage alone.
template <class X> __device__ auto number(X x) {
  if constexpr (is_half<X>) return to_float(x);
  else if constexpr (is_float8<X>) return __uint_as_float(of_code<X>(x.bits));
  else return x;
}

template <class X, class Y> struct CastAny {
  Y *y;
  const X *x;
  __device__ void operator()(int64_t i, int) const {
    const auto value = number(x[i]);
    if constexpr (is_half<Y>) y[i] = from_float<Y>(static_cast<float>(value));
    else if constexpr (is_float8<Y>) y[i] = {to_code<Y>(__float_as_uint(static_cast<float>(value)))};
    else y[i] = static_cast<Y>(value);
  }
};

template <class Body> int32_t by_any(zs_call *call, int dtype, Body body) {
  switch (dtype) {
    case ZS_I32: return body(int32_t{});
    case ZS_U8: return body(uint8_t{});
    case ZS_I64: return body(int64_t{});
    case ZS_F8E4M3: return body(f8e4m3{});
    case ZS_F8E5M2: return body(f8e5m2{});
    default: return by_float(call, dtype, body);
  }
}

template <class X, class Y> int32_t run(zs_call *call) {
  Y *y = data<Y>(call, CAST_Y);
  const X *x = data<X>(call, CAST_X);
  if constexpr (is_float<X> && is_float<Y>) {
    return by_flag(aligned(call, {CAST_Y, CAST_X}), [&](auto v) {
      using Body = CastFloat<X, Y, v.value>;
      return run_packs<Body::N>(call, count_of(call, CAST_Y), Body{y, x});
    });
  } else {
    return run_packs<1>(call, count_of(call, CAST_Y), CastAny<X, Y>{y, x});
  }
}
}  // namespace

int32_t cast(zs_call *call) {
  const int from = dtype_of(call, CAST_X), to = dtype_of(call, CAST_Y);
  if (from == to) return copy_bytes(call, data<char>(call, CAST_Y), data<char>(call, CAST_X), count_of(call, CAST_Y) * bytes_of(to));
  return by_any(call, from, [&]<class X>(X) {
    return by_any(call, to, [&]<class Y>(Y) {
      if constexpr (std::is_same_v<X, Y>) return int32_t{ZS_OK};
      else return run<X, Y>(call);
    });
  });
}

}  // namespace zs::cuda
