// affine: y = x * mul + add, rounded twice as on the CPU, so that losses scaled there and here agree.
#include "device/exact.h"
#include "device/launch.h"
#include "device/vector.h"
#include "../../ops/elementwise.h"

namespace zs::cuda {
namespace {
template <class T, bool V> struct Affine {
  static constexpr int N = kPack<T>;
  T *y;
  const T *x;
  float mul, add;
  __device__ void operator()(int64_t i, int n) const {
    Floats<N> v = load<V, N>(x + i, n);
#pragma unroll
    for (int j = 0; j < N; j++) v.at[j] = Exact(v.at[j]) * mul + add;
    store<V>(y + i, v, n);
  }
};
}  // namespace

int32_t affine(zs_call *call) {
  return by_float(call, dtype_of(call, AFFINE_X), [&]<class T>(T) {
    return by_flag(aligned(call, {AFFINE_Y, AFFINE_X}), [&](auto v) {
      const Affine<T, v.value> body{data<T>(call, AFFINE_Y), data<T>(call, AFFINE_X), real(call, 0), real(call, 1)};
      return run_packs<kPack<T>>(call, count_of(call, AFFINE_Y), body);
    });
  });
}

}  // namespace zs::cuda
