// 8-bit floats against tables of their values in float64: every code, every tie between two codes and its neighbours,
// random values; then quantize, its transpose and its largest value, the scales, and products within the bounds that
// f32 sums of exact products have.
#include <cfloat>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "../../native/backend/cpu/backend.h"
#include "../../native/backend/cpu/float16.h"
#include "../../native/backend/float8.h"
#include "../../native/core/threadpool.h"
#include "check.h"

namespace {

using zs::f8e4m3;
using zs::f8e5m2;

std::mt19937 generator(5);
zs::ThreadPool pool(2);

// The value of a code by the definition of the format.
double value_of(int mantissa, int bias, bool has_infinity, int code) {
  const int a = code & 0x7f, exponent = a >> mantissa, rest = a & ((1 << mantissa) - 1);
  const double sign = code & 0x80 ? -1 : 1;
  if (has_infinity && exponent == 31) return rest ? NAN : sign * INFINITY;
  if (!has_infinity && a == 0x7f) return NAN;
  if (exponent == 0) return sign * std::ldexp(rest, 1 - bias - mantissa);
  return sign * std::ldexp(rest + (1 << mantissa), exponent - bias - mantissa);
}
template <class F> double value_of(int code) { return value_of(F::kMantissa, F::kBias, F::kInfinity != 0x7f, code); }

// The nearest code by a search over all; of two equally near ones the even one; beyond the largest the largest.
template <class F> int nearest(double x) {
  const int sign = std::signbit(x) ? 0x80 : 0;
  if (std::fabs(x) >= value_of<F>(F::kLargest)) return sign | static_cast<int>(F::kLargest);
  int best = 0;
  for (int code = 1; code <= static_cast<int>(F::kLargest); code++) {
    const double gap = std::fabs(value_of<F>(code) - std::fabs(x)), known = std::fabs(value_of<F>(best) - std::fabs(x));
    if (gap < known || (gap == known && code % 2 == 0)) best = code;
  }
  return sign | best;
}

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
float value(uint32_t x) { return std::bit_cast<float>(x); }

template <class F> void codes_are_the_nearest() {
  for (int code = 0; code < 256; code++) {
    const double x = value_of<F>(code);
    const float mine = value(zs::of_code<F>(static_cast<uint8_t>(code)));
    CHECK(std::isnan(x) ? std::isnan(mine) : (mine == x && std::signbit(mine) == std::signbit(x)));
    const int back = zs::to_code<F>(bits(mine));
    CHECK(std::isnan(x) ? (back & 0x7f) == 0x7f : back == code);
    if (!std::isfinite(x) || (code & 0x7f) == F::kLargest) continue;
    const float tie = static_cast<float>((x + value_of<F>(code + 1)) / 2);
    for (float near : {tie, std::nextafter(tie, FLT_MAX), std::nextafter(tie, -FLT_MAX)})
      CHECK(zs::to_code<F>(bits(near)) == nearest<F>(near));
  }
  std::uniform_int_distribution<uint32_t> any;
  for (int i = 0; i < 200000; i++) {
    const float x = value(any(generator));
    const int code = zs::to_code<F>(bits(x));
    if (std::isnan(x)) CHECK((code & 0x7f) == 0x7f);
    else if (std::isinf(x)) CHECK((code & 0x7f) == static_cast<int>(F::kInfinity));
    else CHECK(code == nearest<F>(x));
  }
  std::uniform_real_distribution<double> exponent(-20, 17);
  for (int i = 0; i < 200000; i++) {
    const float x = static_cast<float>(std::exp2(exponent(generator)) * (i % 2 ? 1 : -1));
    CHECK(zs::to_code<F>(bits(x)) == nearest<F>(x));
  }
}

struct Array {
  Array(int dtype, std::vector<int64_t> dims) : dtype(dtype), count(1) {
    for (int64_t d : dims) count *= d;
    const size_t each = dtype == ZS_F32 ? 4 : dtype == ZS_BF16 || dtype == ZS_F16 ? 2 : 1;
    bytes.resize(static_cast<size_t>(count) * each + 1);
  }
  zs_tensor tensor() { return {bytes.data(), count, {count}, 1, dtype}; }
  template <class T> T *as() { return reinterpret_cast<T *>(bytes.data()); }
  void set(int64_t i, float x) {
    if (dtype == ZS_F32) as<float>()[i] = x;
    else if (dtype == ZS_BF16) as<zs::cpu::bf16>()[i] = zs::cpu::to_bf16(x);
    else as<zs::cpu::f16>()[i] = zs::cpu::to_f16(x);
  }
  float get(int64_t i) {
    if (dtype == ZS_F32) return as<float>()[i];
    return dtype == ZS_BF16 ? zs::cpu::to_float(as<zs::cpu::bf16>()[i]) : zs::cpu::to_float(as<zs::cpu::f16>()[i]);
  }
  Array &normal(double scale) {
    std::normal_distribution<double> draw(0, scale);
    for (int64_t i = 0; i < count; i++) set(i, static_cast<float>(draw(generator)));
    return *this;
  }
  int dtype;
  int64_t count;
  std::vector<char> bytes;
};
constexpr zs_tensor kNone = {nullptr, 0, {}, 0, -1};

int32_t run(zs_op op, std::vector<zs_tensor> tensors, std::vector<double> scalars) {
  zs_call call = {tensors.data(), scalars.data(), nullptr, &pool, ""};
  return zs::cpu::kernels[op](&call);
}

template <class F> void a_matrix_is_quantised(int dtype, int x_dtype, int64_t rows, int64_t cols) {
  Array x(x_dtype, {rows, cols}), y(dtype, {rows, cols}), y_t(dtype, {cols, zs::padded(rows)}), amax(ZS_F32, {1}), scale(ZS_F32, {1});
  x.normal(3);
  amax.set(0, 0.5f), scale.set(0, 7.3f);
  const bool special = rows > 1 && cols > 2;
  if (special) x.set(1, 1000), x.set(2, -1e-6f);
  memset(y_t.bytes.data(), 0x55, y_t.bytes.size());
  CHECK(run(ZS_OP_quantize, {amax.tensor(), y.tensor(), y_t.tensor(), x.tensor(), scale.tensor()}, {double(rows), double(cols)}) == ZS_OK);
  float largest = 0.5f;
  for (int64_t r = 0; r < zs::padded(rows); r++)
    for (int64_t c = 0; c < cols; c++) {
      const uint8_t transposed = y_t.as<uint8_t>()[c * zs::padded(rows) + r];
      if (r >= rows) {
        CHECK(transposed == 0);
        continue;
      }
      const float at = x.get(r * cols + c);
      largest = std::fmax(largest, std::fabs(at));
      CHECK(transposed == nearest<F>(at * 7.3f) && y.as<uint8_t>()[r * cols + c] == transposed);
    }
  CHECK(amax.get(0) == largest);
  // Each copy alone, and what is not finite.
  Array alone(dtype, {rows, cols});
  if (rows * cols > 0) x.set(0, -INFINITY);
  CHECK(run(ZS_OP_quantize, {amax.tensor(), alone.tensor(), kNone, x.tensor(), scale.tensor()}, {double(rows), double(cols)}) == ZS_OK);
  if (rows * cols > 0) {
    CHECK(std::isinf(amax.get(0)) && alone.as<uint8_t>()[0] == (F::kInfinity | 0x80));
    CHECK(memcmp(alone.bytes.data() + 1, y.bytes.data() + 1, static_cast<size_t>(rows * cols - 1)) == 0);
    x.set(0, NAN);
    CHECK(run(ZS_OP_quantize, {amax.tensor(), kNone, y_t.tensor(), x.tensor(), scale.tensor()}, {double(rows), double(cols)}) == ZS_OK);
    CHECK(std::isnan(amax.get(0)) && (y_t.as<uint8_t>()[0] & 0x7f) == 0x7f);
  }
}

void scales_follow_from_the_history() {
  for (bool of_largest : {false, true}) {
    Array scale(ZS_F32, {3}), inverse(ZS_F32, {3}), amax(ZS_F32, {3}), history(ZS_F32, {3, 4}), largest(ZS_F32, {3});
    std::vector<std::vector<float>> kept(3, std::vector<float>(4, 0));
    std::vector<float> expected(3, 1);
    for (int i = 0; i < 3; i++) scale.set(i, 1), inverse.set(i, 1), largest.set(i, i == 2 ? 57344 : 448);
    for (int step = 0; step < 12; step++) {
      for (int i = 0; i < 3; i++) {
        const float now = i == 1 && step % 4 == 2 ? (step % 8 == 2 ? INFINITY : NAN) : i == 0 && step == 5 ? 0 : std::ldexp(1.0f + step % 5, i * 9 - step);
        amax.set(i, now);
        if (!std::isfinite(now)) continue;
        kept[i].insert(kept[i].begin(), now);
        kept[i].pop_back();
        float a = now;
        for (float other : kept[i]) a = of_largest ? std::fmax(a, other) : a;
        if (a > 0) expected[i] = std::fmin(largest.get(i) / a / 8, 0x1p60f);
      }
      CHECK(run(ZS_OP_fp8_scale, {scale.tensor(), inverse.tensor(), amax.tensor(), history.tensor(), largest.tensor()},
                {3, 4, double(of_largest), 3}) == ZS_OK);
      for (int i = 0; i < 3; i++) {
        CHECK(amax.get(i) == 0 && scale.get(i) == expected[i] && inverse.get(i) == 1 / expected[i]);
        for (int j = 0; j < 4; j++) CHECK(history.get(4 * i + j) == kept[i][j]);
      }
    }
  }
  // Without a history: from amax alone, which stays.
  Array scale(ZS_F32, {5}), inverse(ZS_F32, {5}), amax(ZS_F32, {5}), largest(ZS_F32, {5});
  const float given[] = {2, 0, INFINITY, NAN, 1e-30f}, wanted[] = {224, 1, 1, 1, 0x1p60f};
  for (int i = 0; i < 5; i++) amax.set(i, given[i]), largest.set(i, 448);
  CHECK(run(ZS_OP_fp8_scale, {scale.tensor(), inverse.tensor(), amax.tensor(), kNone, largest.tensor()}, {5, 0, 0, 0}) == ZS_OK);
  for (int i = 0; i < 5; i++) CHECK(scale.get(i) == wanted[i] && inverse.get(i) == 1 / wanted[i] && bits(amax.get(i)) == bits(given[i]));
}

double value_in(Array &codes, int64_t i) {
  const uint8_t code = codes.as<uint8_t>()[i];
  return codes.dtype == ZS_F8E4M3 ? value_of<f8e4m3>(code) : value_of<f8e5m2>(code);
}

// Products of codes are exact in f32; a sum of k of them in any order is off by at most k 2^-24 of the sum of magnitudes.
struct Size { int64_t m, n, k; };
void products_are_within_their_bounds(int a_dtype, int b_dtype, int y_dtype, const Size &size, bool accumulate, bool bias) {
  const auto [m, n, k] = size;
  Array a(a_dtype, {m, k}), b(b_dtype, {n, k}), y(y_dtype, {m, n}), more(y_dtype, {n}), inverses(ZS_F32, {2});
  std::uniform_int_distribution<int> any(0, 255);
  for (Array *x : {&a, &b})
    for (int64_t i = 0; i < x->count; i++) {
      do x->as<uint8_t>()[i] = static_cast<uint8_t>(any(generator));
      while (!std::isfinite(value_in(*x, i)));
    }
  y.normal(1), more.normal(1);
  Array before = y;
  inverses.set(0, 0x1.8p-6f), inverses.set(1, 0x1.4p-5f);
  zs_tensor second = {inverses.as<float>() + 1, 1, {1}, 1, ZS_F32}, first = {inverses.as<float>(), 1, {1}, 1, ZS_F32};
  CHECK(run(ZS_OP_fp8_matmul, {y.tensor(), a.tensor(), b.tensor(), first, second, bias ? more.tensor() : kNone},
            {double(m), double(n), double(k), double(accumulate), 1}) == ZS_OK);
  const double factor = 0x1.8p-6 * 0x1.4p-5, last = y_dtype == ZS_F32 ? 0x1p-24 : y_dtype == ZS_BF16 ? 0x1p-8 : 0x1p-11;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0, magnitude = 0;
      for (int64_t l = 0; l < k; l++) {
        const double product = value_in(a, i * k + l) * value_in(b, j * k + l);
        sum += product, magnitude += std::fabs(product);
      }
      const double kept = accumulate ? before.get(i * n + j) : 0, added = bias ? more.get(j) : 0;
      const double want = sum * factor + added + kept;
      const double bound = (static_cast<double>(k) + 4) * 0x1p-24 * (magnitude * factor + std::fabs(added) + std::fabs(kept)) + last * 1.01 * std::fabs(want) + 1e-7;
      if (y_dtype == ZS_F16 && std::fabs(want) > 60000) continue;
      CHECK(std::fabs(y.get(i * n + j) - want) <= bound);
    }
}

void misuse_is_refused() {
  Array x(ZS_F32, {2, 3}), y(ZS_F8E4M3, {2, 3}), wide(ZS_F8E5M2, {3, 16}), one(ZS_F32, {1}), odd(ZS_BF16, {6});
  auto quantize = [&](zs_tensor to, zs_tensor to_t, double rows) {
    return run(ZS_OP_quantize, {one.tensor(), to, to_t, x.tensor(), one.tensor()}, {rows, 3});
  };
  CHECK(quantize(kNone, kNone, 2) == ZS_BAD_ARGUMENT);
  CHECK(quantize(odd.tensor(), kNone, 2) == ZS_BAD_ARGUMENT);
  CHECK(quantize(y.tensor(), wide.tensor(), 2) == ZS_BAD_ARGUMENT);
  CHECK(quantize(y.tensor(), kNone, 3) == ZS_BAD_ARGUMENT);
  CHECK(quantize(kNone, y.tensor(), 2) == ZS_BAD_ARGUMENT);
  Array a(ZS_F8E5M2, {2, 4}), b(ZS_F8E5M2, {2, 4}), c(ZS_F8E4M3, {2, 4}), sum(ZS_F32, {2, 2}), bias(ZS_F32, {2});
  auto multiply = [&](Array &left, Array &right, Array &to, zs_tensor add, double k) {
    return run(ZS_OP_fp8_matmul, {to.tensor(), left.tensor(), right.tensor(), one.tensor(), one.tensor(), add}, {2, 2, k, 0, 0});
  };
  CHECK(multiply(a, b, sum, kNone, 4) == ZS_UNSUPPORTED);
  CHECK(multiply(x, c, sum, kNone, 4) == ZS_UNSUPPORTED);
  CHECK(multiply(a, c, y, kNone, 4) == ZS_UNSUPPORTED);
  CHECK(multiply(a, c, sum, bias.tensor(), 4) == ZS_BAD_ARGUMENT);
  CHECK(multiply(a, c, sum, kNone, 5) == ZS_BAD_ARGUMENT);
  CHECK(multiply(a, c, sum, kNone, 4) == ZS_OK);
}

}  // namespace

int main() {
  misuse_is_refused();
  codes_are_the_nearest<f8e4m3>();
  codes_are_the_nearest<f8e5m2>();
  for (int x_dtype : {ZS_F32, ZS_BF16, ZS_F16})
    for (auto [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {16, 64}, {33, 70}, {5, 3}, {100, 129}, {0, 4}}) {
      a_matrix_is_quantised<f8e4m3>(ZS_F8E4M3, x_dtype, rows, cols);
      a_matrix_is_quantised<f8e5m2>(ZS_F8E5M2, x_dtype, rows, cols);
    }
  scales_follow_from_the_history();
  for (int a : {ZS_F8E4M3, ZS_F8E5M2})
    for (int b : {ZS_F8E4M3, ZS_F8E5M2})
      for (int y : {ZS_F32, ZS_BF16, ZS_F16})
        for (bool accumulate : {false, true})
          for (const Size &size : {Size{1, 1, 1}, Size{8, 16, 32}, Size{48, 32, 80}, Size{17, 5, 600}, Size{3, 2, 0}})
            if (a == ZS_F8E4M3 || b == ZS_F8E4M3) products_are_within_their_bounds(a, b, y, size, accumulate, y != ZS_F32 && size.n > 1);
  puts("float8_test: ok");
  return 0;
}
