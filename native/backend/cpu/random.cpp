// dropout and random_fill: values addressed by element index (see native/ops/random.h).
#include <algorithm>
#include <cmath>

#include "../../core/philox.h"
#include "../../ops/random.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
namespace {
// In (0, 1): 24 bits of the word, so that f32 holds it exactly.
float uniform(uint32_t word) { return (static_cast<float>(word >> 8) + 0.5f) * 0x1p-24f; }

class Words {
 public:
  Words(uint64_t seed, uint64_t site) : seed_(seed), site_(site) {}
  uint32_t at(uint64_t index) {
    if (index >> 2 != block_) {
      block_ = index >> 2;
      words_ = philox(seed_, block_, site_);
    }
    return words_[index & 3];
  }

 private:
  uint64_t seed_, site_, block_ = ~uint64_t{0};
  std::array<uint32_t, 4> words_{};
};

float normal(Words &words, uint64_t index) {
  const double first = uniform(words.at(index & ~uint64_t{1})), second = uniform(words.at(index | 1));
  const double radius = std::sqrt(-2 * std::log(first)), angle = 6.283185307179586 * second;
  return static_cast<float>(radius * (index & 1 ? std::sin(angle) : std::cos(angle)));
}
}  // namespace

int32_t dropout(zs_call *call) {
  const Draws draws = draws_of(static_cast<float>(call->scalars[DROPOUT_P]), static_cast<uint64_t>(integer(call, DROPOUT_SEED)),
                               static_cast<uint64_t>(integer(call, DROPOUT_SITE)));
  const int64_t rows = integer(call, DROPOUT_ROWS), cols = integer(call, DROPOUT_COLS), full = integer(call, DROPOUT_FULL_COLS);
  const int64_t row_offset = integer(call, DROPOUT_ROW_OFFSET), col_offset = integer(call, DROPOUT_COL_OFFSET);
  return by_float(call, dtype_of(call, DROPOUT_X), [&]<class T>(T) {
    const T *x = data<T>(call, DROPOUT_X);
    T *y = data<T>(call, DROPOUT_Y);
    parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
      constexpr int64_t kChunk = 256;
      float mask[kChunk];
      for (int64_t r = begin; r < end; r++) for (int64_t c = 0; c < cols; c += kChunk) {
        const int64_t n = std::min(kChunk, cols - c);
        row_kernels().kept(mask, n, draws, static_cast<uint64_t>((row_offset + r) * full + col_offset + c));
        const T *from = x + r * cols + c;
        T *to = y + r * cols + c;
        for (int64_t i = 0; i < n; i++) to[i] = from_float<T>(mask[i] > 0 ? to_float(from[i]) * mask[i] : 0);
      }
    });
    return int32_t{ZS_OK};
  });
}

int32_t random_fill(zs_call *call) {
  const bool gauss = integer(call, RANDOM_FILL_KIND) == 1;
  const float a = static_cast<float>(call->scalars[RANDOM_FILL_A]), b = static_cast<float>(call->scalars[RANDOM_FILL_B]);
  const uint64_t seed = static_cast<uint64_t>(integer(call, RANDOM_FILL_SEED)), site = static_cast<uint64_t>(integer(call, RANDOM_FILL_SITE));
  const uint64_t offset = static_cast<uint64_t>(integer(call, RANDOM_FILL_OFFSET));
  return by_float(call, dtype_of(call, RANDOM_FILL_Y), [&]<class T>(T) {
    T *y = data<T>(call, RANDOM_FILL_Y);
    parallel_for(call, count_of(call, RANDOM_FILL_Y), 4096, [&](int64_t begin, int64_t end) {
      Words words(seed, site);
      for (int64_t i = begin; i < end; i++) {
        const uint64_t index = offset + static_cast<uint64_t>(i);
        y[i] = from_float<T>(gauss ? a + b * normal(words, index) : a + (b - a) * uniform(words.at(index)));
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
