// See reduce.h. Works in blocks that stay in the first-level cache: sum all sources into an f32 (or
// i64) block, then round it into each destination.
#include "reduce.h"

#include <algorithm>

#include "../../backend/backend.h"
#include "../../backend/cpu/float16.h"
#include "../../backend/cpu/clones.h"

namespace zs::shm {
namespace {

using cpu::bf16;
using cpu::f16;
constexpr int64_t kBlock = 2048;

#define ZS_BLOCK_LOOPS(T, Sum, to_sum, from_sum)                                                    \
  ZS_CLONES void first(Sum *__restrict sum, const T *__restrict x, int64_t n) {                     \
    for (int64_t i = 0; i < n; ++i) sum[i] = to_sum(x[i]);                                          \
  }                                                                                                 \
  ZS_CLONES void add(Sum *__restrict sum, const T *__restrict x, int64_t n) {                       \
    for (int64_t i = 0; i < n; ++i) sum[i] += to_sum(x[i]);                                         \
  }                                                                                                 \
  ZS_CLONES void store(T *__restrict y, const Sum *__restrict sum, int64_t n) {                     \
    for (int64_t i = 0; i < n; ++i) y[i] = from_sum(sum[i]);                                        \
  }

ZS_BLOCK_LOOPS(float, float, cpu::to_float, cpu::from_float<float>)
ZS_BLOCK_LOOPS(bf16, float, cpu::to_float, cpu::from_float<bf16>)
ZS_BLOCK_LOOPS(f16, float, cpu::to_float, cpu::from_float<f16>)
ZS_BLOCK_LOOPS(int32_t, uint32_t, static_cast<uint32_t>, static_cast<int32_t>)
ZS_BLOCK_LOOPS(int64_t, uint64_t, static_cast<uint64_t>, static_cast<int64_t>)

ZS_CLONES void divide(float *sum, float by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] /= by;
}
void divide(uint32_t *, float, int64_t) {}  // callers refuse averages of integers
void divide(uint64_t *, float, int64_t) {}

template <class T, class Sum>
void reduce_typed(void *const *destinations, int num_destinations, const void *const *sources,
                  int num_sources, int64_t count, bool average) {
  alignas(64) Sum sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    first(sum, static_cast<const T *>(sources[0]) + begin, n);
    for (int s = 1; s < num_sources; ++s) add(sum, static_cast<const T *>(sources[s]) + begin, n);
    if (average) divide(sum, static_cast<float>(num_sources), n);
    for (int d = 0; d < num_destinations; ++d) store(static_cast<T *>(destinations[d]) + begin, sum, n);
  }
}

}  // namespace

size_t element_size(int dtype) {
  switch (dtype) {
    case ZS_F32: case ZS_I32: return 4;
    case ZS_BF16: case ZS_F16: return 2;
    case ZS_U8: case ZS_F8E4M3: case ZS_F8E5M2: return 1;
    case ZS_I64: return 8;
    default: return 0;
  }
}

const char *dtype_name(int dtype) {
  static const char *const names[] = {"f32", "bf16", "f16", "i32", "u8", "i64", "f8e4m3", "f8e5m2"};
  return dtype >= ZS_F32 && dtype <= ZS_F8E5M2 ? names[dtype] : "an unknown dtype";
}

bool summable(int dtype) { return element_size(dtype) > 1; }
bool averageable(int dtype) { return dtype == ZS_F32 || dtype == ZS_BF16 || dtype == ZS_F16; }

void reduce(int dtype, void *const *destinations, int num_destinations, const void *const *sources,
            int num_sources, int64_t count, bool average) {
  auto *typed = dtype == ZS_F32    ? reduce_typed<float, float>
                : dtype == ZS_BF16 ? reduce_typed<bf16, float>
                : dtype == ZS_F16  ? reduce_typed<f16, float>
                : dtype == ZS_I32  ? reduce_typed<int32_t, uint32_t>
                                   : reduce_typed<int64_t, uint64_t>;
  typed(destinations, num_destinations, sources, num_sources, count, average);
}

}  // namespace zs::shm
