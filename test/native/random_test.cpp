// Random numbers: Philox against its authors' answers, each width against the scalar definition (bits of uniform
// ones, float64 Box-Muller of normal ones), the same bits at every width and for every cut, moments.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "../../native/backend/cpu/cpu.h"
#include "../../native/backend/cpu/rows.h"
#include "../../native/core/philox.h"

namespace {

using zs::cpu::RowKernels;
using Draw = void (*)(float *, int64_t, uint64_t, uint64_t, uint64_t);

int failures = 0;
void expect(bool right, const char *what) {
  if (!right) failures++, printf("FAILED: %s\n", what);
}

struct Width {
  const char *name;
  const RowKernels *rows;
};
std::vector<Width> widths() {
  std::vector<Width> all = {{"portable", &zs::cpu::rows_portable}};
#if defined(ZS_X86)
  if (zs::cpu::simd() >= zs::cpu::Simd::avx2) all.push_back({"avx2", &zs::cpu::rows_avx2});
  if (zs::cpu::simd() >= zs::cpu::Simd::avx512) all.push_back({"avx512", &zs::cpu::rows_avx512});
#endif
  return all;
}

void known_answers() {
  const std::array<uint32_t, 4> zeros = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const std::array<uint32_t, 4> ones = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  expect(zs::philox(0, 0, 0) == zeros, "philox of zeros");
  expect(zs::philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}) == ones, "philox of ones");
}

double uniform_of(uint64_t seed, uint64_t site, uint64_t index) {
  return (static_cast<double>(zs::philox(seed, index >> 2, site)[index & 3] >> 9) + 0.5) / 8388608.0;
}
double normal_of(uint64_t seed, uint64_t site, uint64_t index, double &radius) {
  radius = std::sqrt(-2 * std::log(uniform_of(seed, site, index & ~uint64_t{1})));
  const double angle = 2 * M_PI * uniform_of(seed, site, index | 1);
  return radius * (index & 1 ? std::sin(angle) : std::cos(angle));
}

// Starts that are odd, and one where the block number crosses 32 bits.
const uint64_t starts[] = {0, 1, 2, 3, 17, (uint64_t{1} << 34) - 13, (uint64_t{1} << 53) - 70};

void against_definition(const Width &width) {
  double worst = 0;
  for (uint64_t first : starts) {
    for (int64_t n : {0, 1, 3, 64, 203}) {
      std::vector<float> y(static_cast<size_t>(n) + 1, 7);
      width.rows->uniform(y.data(), n, 0x123456789abcd, 0x3fedcba987654, first);
      bool same = y.back() == 7;
      for (int64_t i = 0; i < n; i++)
        same = same && y[i] == uniform_of(0x123456789abcd, 0x3fedcba987654, first + static_cast<uint64_t>(i));
      expect(same, "uniform numbers are those of the definition");
      width.rows->normal(y.data(), n, 11, 5, first);
      for (int64_t i = 0; i < n; i++) {
        double radius = 0;
        const double want = normal_of(11, 5, first + static_cast<uint64_t>(i), radius);
        worst = std::fmax(worst, std::fabs(y[i] - want) / radius);
      }
      expect(y.back() == 7, "nothing is written behind the end");
    }
  }
  std::vector<float> many(1 << 20);
  width.rows->normal(many.data(), 1 << 20, 3, 4, 0);
  double sum = 0, squares = 0, fourth = 0;
  for (uint64_t i = 0; i < many.size(); i++) {
    double radius = 0, x = many[i];
    worst = std::fmax(worst, std::fabs(x - normal_of(3, 4, i, radius)) / radius);
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  const double n = static_cast<double>(many.size());
  printf("%-9s largest error %.2e of the radius; mean %.1e, variance %.4f, kurtosis %.3f\n", width.name, worst, sum / n,
         squares / n, fourth / n);
  expect(worst < 2.5e-7, "normal numbers are close to float64");
  expect(std::fabs(sum / n) < 5e-3 && std::fabs(squares / n - 1) < 1e-2 && std::fabs(fourth / n - 3) < 5e-2, "moments");
}

void same_bits(const std::vector<Width> &all, Draw RowKernels::*draw) {
  constexpr int64_t n = 1 << 22;
  std::vector<float> first(n), other(n);
  (all[0].rows->*draw)(first.data(), n, 99, 1234567, 5);
  for (const Width &width : all) {
    std::fill(other.begin(), other.end(), 0.0f);
    (width.rows->*draw)(other.data(), n, 99, 1234567, 5);
    expect(memcmp(first.data(), other.data(), n * sizeof(float)) == 0, "the same bits at every width");
    for (int64_t at = 0; at < 100000;) {  // in pieces of 1, 2, 3, …
      const int64_t count = 1 + at % 131;
      (width.rows->*draw)(other.data() + at, count, 99, 1234567, 5 + static_cast<uint64_t>(at));
      at += count;
    }
    expect(memcmp(first.data(), other.data(), n * sizeof(float)) == 0, "the same bits for every cut");
  }
}

}  // namespace

int main() {
  known_answers();
  const std::vector<Width> all = widths();
  for (const Width &width : all) against_definition(width);
  same_bits(all, &RowKernels::uniform);
  same_bits(all, &RowKernels::normal);
  return failures != 0;
}
