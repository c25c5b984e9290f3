// cast: any pair of dtypes; the same dtype is a copy.
#include <cstring>

#include "../../ops/elementwise.h"
#include "floats.h"

namespace zs::cpu {
namespace {
template <class T> struct is_half { static constexpr bool value = false; };
template <> struct is_half<bf16> { static constexpr bool value = true; };
template <> struct is_half<f16> { static constexpr bool value = true; };

template <class X, class Y> Y convert(X x) {
  if constexpr (is_half<Y>::value) {
    if constexpr (is_half<X>::value) return from_float<Y>(to_float(x));
    else return from_float<Y>(static_cast<float>(x));
  } else if constexpr (is_half<X>::value) return static_cast<Y>(to_float(x));
  else return static_cast<Y>(x);
}

template <class X, class Y> int32_t run(zs_call *call) {
  const X *x = data<X>(call, CAST_X);
  Y *y = data<Y>(call, CAST_Y);
  parallel_for(call, count_of(call, CAST_Y), 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = convert<X, Y>(x[i]);
  });
  return ZS_OK;
}

template <class Body> int32_t by_any(zs_call *call, int dtype, Body body) {
  switch (dtype) {
    case ZS_I32: return body(int32_t{});
    case ZS_U8: return body(uint8_t{});
    case ZS_I64: return body(int64_t{});
    default: return by_float(call, dtype, body);
  }
}
}  // namespace

int32_t cast(zs_call *call) {
  const int from = dtype_of(call, CAST_X), to = dtype_of(call, CAST_Y);
  if (count_of(call, CAST_Y) == 0) return ZS_OK;
  if (from == to) {
    static constexpr int64_t size[] = {4, 2, 2, 4, 1, 8};
    char *y = data<char>(call, CAST_Y);
    const char *x = data<char>(call, CAST_X);
    parallel_for(call, count_of(call, CAST_Y) * size[from], 1 << 18, [&](int64_t begin, int64_t end) {
      memmove(y + begin, x + begin, static_cast<size_t>(end - begin));
    });
    return ZS_OK;
  }
  return by_any(call, from, [&]<class X>(X) { return by_any(call, to, [&]<class Y>(Y) { return run<X, Y>(call); }); });
}

}  // namespace zs::cpu
