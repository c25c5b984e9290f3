// Norms, AdamW and the global norm's passes at every width of vectors, against float64 with obvious loops; what must
// not depend on the width or the cut (AdamW, squares, the largest magnitude) is compared bit for bit.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "../../native/backend/cpu/cpu.h"
#include "../../native/backend/cpu/float16.h"
#include "../../native/backend/cpu/rows.h"

namespace {

using namespace zs::cpu;
using Floats = std::vector<float>;

std::mt19937 generator(3);
int failures = 0;
void expect(bool right, const char *what) {
  if (!right) failures++, printf("FAILED: %s\n", what);
}

std::vector<const RowKernels *> widths() {
  std::vector<const RowKernels *> all = {&rows_portable};
#if defined(ZS_X86)
  if (simd() >= Simd::avx2) all.push_back(&rows_avx2);
  if (simd() >= Simd::avx512) all.push_back(&rows_avx512);
#endif
  return all;
}

template <class T> std::vector<T> random_values(int64_t count, double scale = 1) {
  std::normal_distribution<double> normal(0, scale);
  std::vector<T> values(static_cast<size_t>(count));
  for (T &value : values) value = from_float<T>(static_cast<float>(normal(generator)));
  return values;
}

template <class T> struct Norm {
  int64_t rows = 5, cols;
  bool layer, affine, residual;
  std::vector<T> x, dy, more, y, sum, dx;
  Floats weight, bias, mean, rstd, dweight, dbias;

  Norm(int64_t cols, bool layer, bool affine, bool residual)
      : cols(cols), layer(layer), affine(affine), residual(residual), x(random_values<T>(rows * cols)),
        dy(random_values<T>(rows * cols)), more(random_values<T>(rows * cols)), y(x), sum(x), dx(x),
        weight(random_values<float>(cols)), bias(random_values<float>(cols)), mean(5), rstd(5),
        dweight(static_cast<size_t>(cols), 1.0f), dbias(dweight) {}

  void run(const NormKernels &kernels) {
    Floats scratch(static_cast<size_t>(2 * cols));
    const float *w = affine ? weight.data() : nullptr, *b = affine && layer ? bias.data() : nullptr;
    float *means = layer ? mean.data() : nullptr;
    kernels.forward({y.data(), residual ? sum.data() : nullptr, means, rstd.data(), x.data(), residual ? more.data() : nullptr, w,
                     b, cols, 1e-5f}, 0, rows, scratch.data());
    if (!residual) sum = x;
    kernels.backward({dx.data(), dy.data(), sum.data(), residual ? more.data() : nullptr, means, rstd.data(), w, cols}, 0, rows,
                     dweight.data(), layer ? dbias.data() : nullptr, scratch.data());
  }

  // The largest error, relative to the larger of 1 and the value.
  double error() const {
    double worst = 0;
    auto note = [&](double got, double want) {
      worst = std::fmax(worst, std::isnan(got) ? 1e9 : std::fabs(got - want) / std::fmax(1, std::fabs(want)));
    };
    std::vector<double> dw(static_cast<size_t>(cols), 1), db(dw);
    for (int64_t r = 0; r < rows; r++) {
      auto at = [&](const std::vector<T> &v, int64_t c) { return double(to_float(v[r * cols + c])); };
      double total = 0, squares = 0, dot = 0, slopes = 0;
      for (int64_t c = 0; c < cols; c++) {
        if (residual) note(at(sum, c), at(x, c) + at(more, c));
        total += at(sum, c);
      }
      const double m = layer ? total / double(cols) : 0, n = double(cols);
      for (int64_t c = 0; c < cols; c++) squares += (at(sum, c) - m) * (at(sum, c) - m);
      const double s = 1 / std::sqrt(squares / n + double(1e-5f));
      if (layer) note(mean[r], m);
      note(rstd[r] / s, 1);
      for (int64_t c = 0; c < cols; c++) {
        const double normal = (at(sum, c) - m) * s, w = affine ? weight[c] : 1, slope = at(dy, c) * w;
        note(at(y, c), normal * w + (affine && layer ? bias[c] : 0));
        dw[c] += at(dy, c) * normal, db[c] += at(dy, c), dot += slope * normal, slopes += slope;
      }
      for (int64_t c = 0; c < cols; c++) {
        const double normal = (at(sum, c) - m) * s, slope = at(dy, c) * (affine ? weight[c] : 1);
        note(at(dx, c) / s, slope - (layer ? slopes / n : 0) - normal * dot / n + (residual ? at(more, c) / s : 0));
      }
    }
    for (int64_t c = 0; c < cols; c++) {
      note(dweight[c], dw[c]);
      if (layer) note(dbias[c], db[c]);
    }
    return worst;
  }
};

template <class T> void norms(int dtype, double allowed) {
  double worst = 0;
  for (const RowKernels *rows : widths()) {
    for (int64_t cols : {3, 16, 33, 64, 130, 777}) {
      for (int flags = 0; flags < 8; flags++) {
        Norm<T> norm(cols, flags & 1, flags & 2, flags & 4);
        norm.run(rows->norms[dtype]);
        worst = std::fmax(worst, norm.error());
      }
    }
  }
  printf("norms, dtype %d: largest error %.1e, allowed %.1e\n", dtype, worst, allowed);
  expect(worst <= allowed, "norms are close to float64");
}

template <class T> void global_norm(int dtype) {
  const std::vector<T> x = random_values<T>(5001, 3);
  float top = 0;
  for (T value : x) top = std::fmax(top, std::fabs(to_float(value)));
  const double scale = 2048 / std::exp2(std::ceil(std::log2(top)));
  for (const RowKernels *rows : widths()) {
    const GradientKernels &k = rows->gradients[dtype];
    for (int64_t n : {0, 1, 255, 256, 257, 5001}) {
      int64_t high = 5, low = 7, want_high = 5, want_low = 7;
      uint32_t bits = 0;
      for (int64_t i = 0; i < n; i++) {
        const double value = double(to_float(x[i])) * scale, square = value * value, whole = std::floor(square);
        want_high += static_cast<int64_t>(whole);
        want_low += static_cast<int64_t>(std::floor((square - whole) * 4194304 + 0.5));
        bits = std::max(bits, std::bit_cast<uint32_t>(std::fabs(to_float(x[i]))));
      }
      k.squares(x.data(), n, scale, &high, &low);
      expect(high == want_high && low == want_low, "squares are exact");
      expect(k.absmax(x.data(), n) == bits, "the largest magnitude");
    }
    std::vector<T> odd(x.begin(), x.begin() + 40);
    odd[33] = from_float<T>(-INFINITY);
    expect(std::bit_cast<float>(k.absmax(odd.data(), 40)) == INFINITY, "infinity is the largest");
    odd[7] = from_float<T>(NAN);
    expect(std::isnan(std::bit_cast<float>(k.absmax(odd.data(), 40))), "NaN wins over infinity");
  }
}

}  // namespace

int main() {
  norms<float>(ZS_F32, 1e-5);
  norms<bf16>(ZS_BF16, 2e-2);
  norms<f16>(ZS_F16, 2e-3);
  global_norm<float>(ZS_F32);
  global_norm<bf16>(ZS_BF16);
  global_norm<f16>(ZS_F16);
  return failures != 0;
}
