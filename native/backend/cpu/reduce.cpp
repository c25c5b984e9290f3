// reduce: sum, max or min over the middle of (outer, n, inner), in a fixed order: blocks of 32, then the blocks.
#include <algorithm>
#include <cmath>

#include "../../ops/layout.h"
#include "floats.h"

namespace zs::cpu {
namespace {
constexpr int64_t kBlock = 32;

struct Reduce { int64_t n, inner; int kind; bool accumulate; float scale; };

// One range of columns [begin, end) of one outer slice.
template <class X, class Y> void columns(const X *x, Y *y, const Reduce &p, int64_t begin, int64_t end, std::vector<float> &buffer) {
  const int64_t width = end - begin;
  const float start = p.kind == REDUCE_SUM ? 0.0f : p.kind == REDUCE_MAX ? -INFINITY : INFINITY;
  buffer.assign(static_cast<size_t>(2 * width), start);
  float *total = buffer.data(), *block = total + width;
  for (int64_t from = 0; from < p.n; from += kBlock) {
    if (p.kind == REDUCE_SUM) std::fill(block, block + width, 0.0f);
    for (int64_t i = from; i < std::min(p.n, from + kBlock); i++) {
      const X *row = x + i * p.inner + begin;
      if (p.kind == REDUCE_SUM) for (int64_t c = 0; c < width; c++) block[c] += to_float(row[c]);
      else if (p.kind == REDUCE_MAX) for (int64_t c = 0; c < width; c++) total[c] = std::max(total[c], to_float(row[c]));
      else for (int64_t c = 0; c < width; c++) total[c] = std::min(total[c], to_float(row[c]));
    }
    if (p.kind == REDUCE_SUM) for (int64_t c = 0; c < width; c++) total[c] += block[c];
  }
  for (int64_t c = 0; c < width; c++) y[begin + c] = from_float<Y>(total[c] * p.scale + (p.accumulate ? to_float(y[begin + c]) : 0));
}

// A contiguous sum (inner 1): fixed blocks of 1024 in float lanes, blocks in double.
template <class X> float row_sum(const X *x, int64_t n) {
  double total = 0;
  for (int64_t from = 0; from < n; from += 1024) {
    float lanes[16] = {};
    const int64_t end = std::min(n, from + 1024);
    int64_t i = from;
    for (; i + 16 <= end; i += 16) for (int lane = 0; lane < 16; lane++) lanes[lane] += to_float(x[i + lane]);
    for (; i < end; i++) lanes[0] += to_float(x[i]);
    for (float lane : lanes) total += lane;
  }
  return static_cast<float>(total);
}

template <class X, class Y> int32_t run(zs_call *call) {
  const int64_t outer = integer(call, REDUCE_OUTER);
  const Reduce p{integer(call, REDUCE_N), integer(call, REDUCE_INNER), static_cast<int>(integer(call, REDUCE_KIND)),
                 integer(call, REDUCE_ACCUMULATE) != 0, static_cast<float>(call->scalars[REDUCE_SCALE])};
  const X *x = data<X>(call, REDUCE_X);
  Y *y = data<Y>(call, REDUCE_Y);
  if (p.inner == 1 && p.kind == REDUCE_SUM) {
    parallel_for(call, outer, row_grain(p.n), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; o++) {
        y[o] = from_float<Y>(row_sum(x + o * p.n, p.n) * p.scale + (p.accumulate ? to_float(y[o]) : 0));
      }
    });
    return ZS_OK;
  }
  if (p.inner == 0) return ZS_OK;
  const int64_t width = 128, pieces = (p.inner + width - 1) / width;
  parallel_for(call, outer * pieces, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> buffer;
    for (int64_t piece = begin; piece < end; piece++) {
      const int64_t o = piece / pieces, from = piece % pieces * width;
      columns(x + o * p.n * p.inner, y + o * p.inner, p, from, std::min(p.inner, from + width), buffer);
    }
  });
  return ZS_OK;
}
}  // namespace

int32_t reduce(zs_call *call) {
  return by_float(call, dtype_of(call, REDUCE_Y), [&]<class Y>(Y) {
    if (count_of(call, REDUCE_X) == 0) return run<Y, Y>(call);
    return by_float(call, dtype_of(call, REDUCE_X), [&]<class X>(X) { return run<X, Y>(call); });
  });
}

}  // namespace zs::cpu
