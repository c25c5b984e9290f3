// dropout and random_fill: values addressed by element index (native/ops/random.h), bit for bit the CPU's. A thread
// that takes consecutive elements computes a Philox block of four words once.
#include "../../ops/random.h"
#include "device/launch.h"
#include "device/philox.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {

uint64_t word(const zs_call *call, int scalar) { return static_cast<uint64_t>(integer(call, scalar)); }

// A tensor that is not cut is one long row.
template <class T, bool V, bool Whole> struct Dropout {
  static constexpr int N = kPack<T>;
  T *y;
  const T *x;
  Draws draws;
  int64_t cols, full, first, split, second, row_offset;

  __device__ uint64_t index(int64_t r, int64_t c) const {
    const int64_t row = (row_offset + r) * full;
    return static_cast<uint64_t>(row + (c < split ? first + c : second + c - split));
  }
  __device__ void operator()(int64_t i, int n) const {
    Floats<N> v = load<V, N>(x + i, n);
    Draw draw(draws);
    int64_t r = Whole ? 0 : i / cols, c = Whole ? i : i - r * cols;
#pragma unroll
    for (int j = 0; j < N; j++) {
      const float factor = draw(Whole ? static_cast<uint64_t>(first + i + j) : index(r, c));
      v.at[j] = factor > 0 ? v.at[j] * factor : 0;
      if (!Whole && ++c == cols) c = 0, r++;
    }
    store<V>(y + i, v, n);
  }
};

// One thread: the four numbers of block (offset >> 2) + i.
template <class T, bool Gauss> struct RandomFill {
  T *y;
  int64_t count;
  float a, factor;
  uint64_t seed, site, offset;
  __device__ void operator()(int64_t i, int) const {
    const Words words = philox(seed, (offset >> 2) + static_cast<uint64_t>(i), site);
    float u[4];
#pragma unroll
    for (int j = 0; j < 4; j++) u[j] = uniform(words.at[j]);
    if constexpr (Gauss) {
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const Exact radius = root(-2.0f * log_exact(u[j]));
        float cosine, sine;
        turn(u[j + 1], cosine, sine);
        u[j] = radius * cosine;
        u[j + 1] = radius * sine;
      }
    }
    const int64_t first = 4 * i - static_cast<int64_t>(offset & 3);
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (first + j >= 0 && first + j < count) y[first + j] = from_float<T>(Exact(a) + Exact(factor) * u[j]);
  }
};

}  // namespace

int32_t dropout(zs_call *call) {
  const Draws draws = draws_of(real(call, DROPOUT_P), word(call, DROPOUT_SEED), word(call, DROPOUT_SITE));
  const int64_t cols = integer(call, DROPOUT_COLS), full = integer(call, DROPOUT_FULL_COLS);
  const int64_t count = integer(call, DROPOUT_ROWS) * cols, row = integer(call, DROPOUT_ROW_OFFSET);
  const bool whole = cols == full;
  const int64_t col = integer(call, DROPOUT_COL_OFFSET), first = whole ? row * full + col : col;
  return by_float(call, dtype_of(call, DROPOUT_X), [&]<class T>(T) {
    return by_flag(aligned(call, {DROPOUT_Y, DROPOUT_X}), [&](auto v) {
      return by_flag(whole, [&](auto w) {
        const Dropout<T, v.value, w.value> body{data<T>(call, DROPOUT_Y), data<T>(call, DROPOUT_X), draws, cols, full, first,
                                                integer(call, DROPOUT_SPLIT), integer(call, DROPOUT_SECOND_OFFSET), row};
        return run_packs<kPack<T>>(call, count, body);
      });
    });
  });
}

int32_t random_fill(zs_call *call) {
  const bool gauss = integer(call, RANDOM_FILL_KIND) == 1;
  const float a = real(call, RANDOM_FILL_A), b = real(call, RANDOM_FILL_B);
  const uint64_t offset = word(call, RANDOM_FILL_OFFSET);
  const int64_t count = count_of(call, RANDOM_FILL_Y);
  if (count == 0) return ZS_OK;
  return by_float(call, dtype_of(call, RANDOM_FILL_Y), [&]<class T>(T) {
    return by_flag(gauss, [&](auto g) {
      const RandomFill<T, g.value> body{data<T>(call, RANDOM_FILL_Y), count, a, gauss ? b : b - a, word(call, RANDOM_FILL_SEED),
                                        word(call, RANDOM_FILL_SITE), offset};
      return run_packs<1>(call, ceil_div(count + static_cast<int64_t>(offset & 3), 4), body);
    });
  });
}

}  // namespace zs::cuda
