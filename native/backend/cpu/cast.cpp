// cast: any pair of dtypes, by way of f32 where one has 8 or 16 bits; the same dtype is a copy.
#include <cstring>

#include "../../ops/elementwise.h"
#include "../float8.h"
#include "floats.h"

namespace zs::cpu {
namespace {
template <class T> constexpr bool is_half = false;
template <> constexpr inline bool is_half<bf16> = true;
template <> constexpr inline bool is_half<f16> = true;

// The number itself, or f32 for a type that is storage alone.
template <class X> auto number(X x) {
  if constexpr (is_half<X>) return to_float(x);
  else if constexpr (is_float8<X>) return std::bit_cast<float>(of_code<X>(x.bits));
  else return x;
}
template <class X, class Y> Y convert(X x) {
  if constexpr (is_half<Y>) return from_float<Y>(static_cast<float>(number(x)));
  else if constexpr (is_float8<Y>) return {to_code<Y>(std::bit_cast<uint32_t>(static_cast<float>(number(x))))};
  else return static_cast<Y>(number(x));
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
    case ZS_F8E4M3: return body(f8e4m3{});
    case ZS_F8E5M2: return body(f8e5m2{});
    default: return by_float(call, dtype, body);
  }
}
}  // namespace

int32_t cast(zs_call *call) {
  const int from = dtype_of(call, CAST_X), to = dtype_of(call, CAST_Y);
  if (count_of(call, CAST_Y) == 0) return ZS_OK;
  if (from == to) {
    static constexpr int64_t size[] = {4, 2, 2, 4, 1, 8, 1, 1};
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
