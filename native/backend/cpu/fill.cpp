// fill: a constant into any dtype.
#include "../../ops/elementwise.h"
#include "../float8.h"
#include "floats.h"

namespace zs::cpu {
namespace {
template <class T> int32_t put(zs_call *call, T value) {
  T *y = data<T>(call, FILL_Y);
  parallel_for(call, count_of(call, FILL_Y), 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = value;
  });
  return ZS_OK;
}
}  // namespace

int32_t fill(zs_call *call) {
  double value = call->scalars[0];
  switch (dtype_of(call, FILL_Y)) {
    case ZS_I32: return put(call, static_cast<int32_t>(value));
    case ZS_U8: return put(call, static_cast<uint8_t>(value));
    case ZS_I64: return put(call, static_cast<int64_t>(value));
    case ZS_F8E4M3:
    case ZS_F8E5M2:
      return by_float8(call, dtype_of(call, FILL_Y), [&]<class T>(T) {
        return put(call, to_code<T>(std::bit_cast<uint32_t>(static_cast<float>(value))));
      });
    default: return by_float(call, dtype_of(call, FILL_Y), [&]<class T>(T) { return put(call, from_float<T>(static_cast<float>(value))); });
  }
}

}  // namespace zs::cpu
