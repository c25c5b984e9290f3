// top_k: k times the largest of what is left of a row, a warp or a block per row. Right for a router's few experts and
// for a sampler's few dozens of candidates; the row stays in the caches. Values and ids make one 64-bit key, so a tie
// goes to the lower id; a NaN comes after everything.
#include "../../ops/layout.h"
#include "device/launch.h"
#include "device/reduce.h"

namespace zs::cuda {
namespace {

// Orders as the values do, +0 like -0; then the lower id first. Never 0.
__device__ inline uint64_t key_of(float x, int id) {
  const uint32_t bits = __float_as_uint(x == 0 ? 0.0f : x);
  const uint32_t order = x != x ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | ~static_cast<uint32_t>(id);
}

template <class T> __global__ void __launch_bounds__(kThreads) top_k_kernel(T *values, int32_t *ids, const T *x, int64_t rows, int cols, int k) {
  __shared__ unsigned long long buffer[32];
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    unsigned long long last = ~0ull;
    for (int i = 0; i < k; i++) {
      unsigned long long best = 0;
      for (int c = static_cast<int>(threadIdx.x); c < cols; c += static_cast<int>(blockDim.x)) {
        const unsigned long long key = key_of(to_float(x[r * cols + c]), c);
        if (key < last && key > best) best = key;
      }
      last = block_reduce(best, Max{}, buffer);
      if (threadIdx.x == 0) {
        const int id = static_cast<int>(~static_cast<uint32_t>(last));
        ids[r * k + i] = id;
        values[r * k + i] = x[r * cols + id];
      }
    }
  }
}

}  // namespace

int32_t top_k(zs_call *call) {
  const int64_t rows = integer(call, 0), cols = integer(call, 1), k = integer(call, 2);
  if (rows == 0 || k == 0) return ZS_OK;
  return by_float(call, dtype_of(call, TOP_K_X), [&]<class T>(T) {
    const int threads = cols <= 256 ? 32 : kThreads;
    return launch(call, top_k_kernel<T>, resident(call, rows, threads), threads, 0, data<T>(call, TOP_K_VALUES),
                  data<int32_t>(call, TOP_K_IDS), data<T>(call, TOP_K_X), rows, static_cast<int>(cols), static_cast<int>(k));
  });
}

}  // namespace zs::cuda
