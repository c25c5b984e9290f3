// fill: a constant into any dtype, as a pattern of 16 bytes between the bytes before the first boundary and behind
// the last.
#include <cstring>

#include "../cpu/float16.h"
#include "../float8.h"
#include "device/launch.h"
#include "device/vector.h"
#include "../../ops/elementwise.h"

namespace zs::cuda {
namespace {
template <class T> struct Fill {
  static constexpr int N = 16 / sizeof(T);
  T *y;
  T value;
  uint4 pattern;
  __device__ void operator()(int64_t i, int n) const {
    if (n == N && reinterpret_cast<uintptr_t>(y + i) % 16 == 0) {
      *reinterpret_cast<uint4 *>(y + i) = pattern;
    } else {
      for (int j = 0; j < n; j++) y[i + j] = value;
    }
  }
};

template <class T> int32_t put(zs_call *call, T value) {
  Fill<T> body{data<T>(call, FILL_Y), value, {}};
  T many[16 / sizeof(T)];
  for (T &one : many) one = value;
  memcpy(&body.pattern, many, 16);
  return run_packs<Fill<T>::N>(call, count_of(call, FILL_Y), body);
}
}  // namespace

int32_t fill(zs_call *call) {
  const double value = call->scalars[0];
  switch (dtype_of(call, FILL_Y)) {
    case ZS_I32: return put(call, static_cast<int32_t>(value));
    case ZS_U8: return put(call, static_cast<uint8_t>(value));
    case ZS_I64: return put(call, static_cast<int64_t>(value));
    case ZS_F32: return put(call, static_cast<float>(value));
    case ZS_BF16: return put(call, bf16{cpu::to_bf16(static_cast<float>(value)).bits});
    case ZS_F16: return put(call, f16{cpu::to_f16(static_cast<float>(value)).bits});
    case ZS_F8E4M3: return put(call, to_code<f8e4m3>(std::bit_cast<uint32_t>(static_cast<float>(value))));
    case ZS_F8E5M2: return put(call, to_code<f8e5m2>(std::bit_cast<uint32_t>(static_cast<float>(value))));
    default: return fail(call, ZS_UNSUPPORTED, "no element type %d", dtype_of(call, FILL_Y));
  }
}

}  // namespace zs::cuda
