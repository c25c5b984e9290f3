// dropout and random_fill: values addressed by element index (see native/ops/random.h).
#include <algorithm>

#include "../../ops/random.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
namespace {

constexpr int64_t kChunk = 1024;  // numbers drawn at a time, in the first-level cache

uint64_t word(const zs_call *call, int scalar) { return static_cast<uint64_t>(integer(call, scalar)); }

}  // namespace

int32_t dropout(zs_call *call) {
  const Draws draws = draws_of(static_cast<float>(call->scalars[DROPOUT_P]), word(call, DROPOUT_SEED),
                               word(call, DROPOUT_SITE));
  const int64_t rows = integer(call, DROPOUT_ROWS), cols = integer(call, DROPOUT_COLS), full = integer(call, DROPOUT_FULL_COLS);
  const int64_t row_offset = integer(call, DROPOUT_ROW_OFFSET), col_offset = integer(call, DROPOUT_COL_OFFSET);
  const int64_t second_offset = integer(call, DROPOUT_SECOND_OFFSET);
  const auto kept = row_kernels().kept;
  return by_float(call, dtype_of(call, DROPOUT_X), [&]<class T>(T) {
    const T *x = data<T>(call, DROPOUT_X);
    T *y = data<T>(call, DROPOUT_Y);
    // A tensor that is not cut is one long row.
    const bool whole = cols == full;
    const int64_t lines = whole ? 1 : rows, width = whole ? rows * cols : cols;
    const int64_t split = whole ? width : integer(call, DROPOUT_SPLIT);
    const int64_t pieces = (width + kChunk - 1) / kChunk;
    parallel_for(call, lines * pieces, 8, [&](int64_t begin, int64_t end) {
      float mask[kChunk];
      for (int64_t piece = begin; piece < end; piece++) {
        const int64_t r = piece / pieces, c = piece % pieces * kChunk, n = std::min(kChunk, width - c), at = r * width + c;
        const int64_t row = (row_offset + r) * full, first = std::clamp(split - c, int64_t{0}, n);
        kept(mask, first, draws, static_cast<uint64_t>(row + col_offset + c));
        kept(mask + first, n - first, draws, static_cast<uint64_t>(row + second_offset + c + first - split));
        for (int64_t i = 0; i < n; i++) mask[i] = mask[i] > 0 ? to_float(x[at + i]) * mask[i] : 0;
        narrow(y + at, mask, n);
      }
    });
    return int32_t{ZS_OK};
  });
}

int32_t random_fill(zs_call *call) {
  const bool gauss = integer(call, RANDOM_FILL_KIND) == 1;
  const float a = static_cast<float>(call->scalars[RANDOM_FILL_A]), b = static_cast<float>(call->scalars[RANDOM_FILL_B]);
  const float factor = gauss ? b : b - a;
  const uint64_t seed = word(call, RANDOM_FILL_SEED), site = word(call, RANDOM_FILL_SITE), offset = word(call, RANDOM_FILL_OFFSET);
  const auto draw = gauss ? row_kernels().normal : row_kernels().uniform;
  return by_float(call, dtype_of(call, RANDOM_FILL_Y), [&]<class T>(T) {
    T *y = data<T>(call, RANDOM_FILL_Y);
    parallel_for(call, count_of(call, RANDOM_FILL_Y), 4 * kChunk, [&](int64_t begin, int64_t end) {
      float drawn[kChunk];
      for (int64_t i = begin; i < end; i += kChunk) {
        const int64_t n = std::min(kChunk, end - i);
        draw(drawn, n, seed, site, offset + static_cast<uint64_t>(i));
        for (int64_t j = 0; j < n; j++) drawn[j] = a + factor * drawn[j];
        narrow(y + i, drawn, n);
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
