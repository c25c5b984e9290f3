// matmul against a float64 product with obvious loops: dtypes, transpositions, epilogues, odd sizes, unaligned
// data, batches, thread counts. Prints the largest error of each group; exits with 1 on a failure.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "../../native/backend/cpu/cpu.h"
#include "../../native/backend/cpu/float16.h"
#include "../../native/ops/matmul.h"

namespace zs::cpu {
int32_t matmul(zs_call *call);
}

namespace {

using zs::cpu::bf16;
using zs::cpu::f16;

std::mt19937 generator(1);
int failures = 0;

// Values of one dtype at an address that is aligned to the element only.
struct Array {
  Array(int dtype, int64_t count) : dtype(dtype), count(count), bytes(static_cast<size_t>(count + 1) * 4 + 64) {}
  void *data() { return bytes.data() + (dtype == ZS_F32 ? 4 : 2); }
  double get(int64_t i) {
    if (dtype == ZS_F32) return static_cast<float *>(data())[i];
    if (dtype == ZS_BF16) return zs::cpu::to_float(static_cast<bf16 *>(data())[i]);
    return zs::cpu::to_float(static_cast<f16 *>(data())[i]);
  }
  void set(int64_t i, double x) {
    const float f = static_cast<float>(x);
    if (dtype == ZS_F32) static_cast<float *>(data())[i] = f;
    else if (dtype == ZS_BF16) static_cast<bf16 *>(data())[i] = zs::cpu::to_bf16(f);
    else static_cast<f16 *>(data())[i] = zs::cpu::to_f16(f);
  }
  void randomize(double scale) {
    std::normal_distribution<double> normal(0, scale);
    for (int64_t i = 0; i < count; i++) set(i, normal(generator));
  }
  zs_tensor tensor() {
    zs_tensor t{};
    t.data = data(), t.count = count, t.dtype = dtype;
    return t;
  }
  int dtype;
  int64_t count;
  std::vector<char> bytes;
};

double gelu(double x, bool erf_form) {
  if (erf_form) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double gelu_slope(double x, bool erf_form) {
  if (erf_form) return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), t = std::tanh(u);
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

struct Case {
  int64_t batch = 1, m = 1, n = 1, k = 1;
  int dtype = ZS_F32, y_dtype = ZS_F32;
  bool trans_a = false, trans_b = false, accumulate = false, bias = false, alpha = false, pre = false;
  bool shared_b = false;
  int epilogue = EPILOGUE_NONE;
};

double unit_of(int dtype) { return dtype == ZS_F32 ? 0x1p-24 : dtype == ZS_BF16 ? 0x1p-8 : 0x1p-11; }

// The largest error in units of what rounding allows: below 1 is right.
double run(const Case &c, zs::ThreadPool &pool, std::vector<char> *result = nullptr) {
  const int64_t count = c.batch * c.m * c.n;
  Array a(c.dtype, c.batch * c.m * c.k), b(c.dtype, (c.shared_b ? 1 : c.batch) * c.k * c.n), bias(c.dtype, c.n);
  Array y(c.y_dtype, count), pre(c.y_dtype, count), pre_in(c.y_dtype, count), alpha(ZS_F32, 1);
  const double scale = 1 / std::sqrt(static_cast<double>(c.k) + 1);
  a.randomize(1), b.randomize(scale), bias.randomize(1), y.randomize(1), pre_in.randomize(2), alpha.set(0, 0.625);
  Array y0 = y;
  const bool dgelu = c.epilogue >= EPILOGUE_DGELU_TANH;
  zs_tensor none{};
  none.dtype = -1;
  zs_tensor tensors[] = {y.tensor(), c.pre ? pre.tensor() : none, a.tensor(), b.tensor(),
                         c.bias ? bias.tensor() : none, dgelu ? pre_in.tensor() : none,
                         c.alpha ? alpha.tensor() : none};
  double scalars[] = {double(c.batch), double(c.m), double(c.n), double(c.k), double(c.trans_a), double(c.trans_b),
                      double(c.accumulate), double(c.epilogue)};
  zs_call call{};
  call.tensors = tensors, call.scalars = scalars, call.context = &pool;
  if (zs::cpu::matmul(&call) != ZS_OK) return printf("refused: %s\n", call.error), 1e9;
  if (result) result->assign(y.bytes.begin(), y.bytes.end());

  double worst = 0;
  const bool erf_form = c.epilogue == EPILOGUE_GELU_ERF || c.epilogue == EPILOGUE_DGELU_ERF;
  for (int64_t i = 0; i < c.batch; i++) {
    for (int64_t r = 0; r < c.m; r++) {
      for (int64_t s = 0; s < c.n; s++) {
        const int64_t at = (i * c.m + r) * c.n + s, b0 = c.shared_b ? 0 : i * c.k * c.n;
        double sum = 0, magnitude = 1e-3;
        for (int64_t l = 0; l < c.k; l++) {
          const double product = a.get(i * c.m * c.k + (c.trans_a ? l * c.m + r : r * c.k + l)) *
                                 b.get(b0 + (c.trans_b ? s * c.k + l : l * c.n + s));
          sum += product, magnitude += std::fabs(product);
        }
        if (c.alpha) sum *= 0.625;
        if (c.bias) sum += bias.get(s);
        magnitude += std::fabs(sum);
        if (c.pre) {
          const double allowed = magnitude * 0x1p-21 + std::fabs(sum) * unit_of(c.y_dtype) * 1.01;
          worst = std::fmax(worst, std::fabs(pre.get(at) - sum) / allowed);
        }
        double want = sum;
        if (dgelu) want *= gelu_slope(pre_in.get(at), erf_form), magnitude *= 3;
        else if (c.epilogue) want = gelu(sum, erf_form), magnitude *= 2;
        if (c.accumulate) want += y0.get(at), magnitude += std::fabs(y0.get(at));
        const double allowed = magnitude * 0x1p-21 + std::fabs(want) * unit_of(c.y_dtype) * 1.01;
        const double error = std::fabs(y.get(at) - want) / allowed;
        worst = error <= worst ? worst : std::isnan(error) ? 1e9 : error;
      }
    }
  }
  return worst;
}

void report(const char *group, double worst, int cases) {
  const bool failed = !(worst <= 1);
  printf("%-44s %4d cases, largest error %.3f of the allowed%s\n", group, cases, worst, failed ? "  FAILED" : "");
  failures += failed;
}

const int dtypes[][2] = {{ZS_F32, ZS_F32}, {ZS_BF16, ZS_F32}, {ZS_BF16, ZS_BF16}, {ZS_F16, ZS_F32}, {ZS_F16, ZS_F16}};

void sizes_and_transpositions(zs::ThreadPool &pool) {
  const int64_t sizes[][3] = {{1, 1, 1},   {0, 5, 3},     {5, 0, 3},    {5, 3, 0},   {2, 33, 17},  {8, 1030, 65},
                              {9, 31, 16}, {15, 33, 785}, {28, 64, 32}, {70, 3, 50}, {129, 97, 63}, {200, 1, 7}};
  for (auto &d : dtypes) {
    double worst = 0;
    int cases = 0;
    for (auto &s : sizes) {
      for (int flags = 0; flags < 8; flags++, cases++) {
        Case c;
        c.m = s[0], c.n = s[1], c.k = s[2], c.dtype = d[0], c.y_dtype = d[1];
        c.trans_a = flags & 1, c.trans_b = flags & 2, c.accumulate = flags & 4;
        worst = std::fmax(worst, run(c, pool));
      }
    }
    char name[64];
    snprintf(name, sizeof name, "sizes, transpositions: %d -> %d", d[0], d[1]);
    report(name, worst, cases);
  }
}

void epilogues(zs::ThreadPool &pool) {
  for (auto &d : dtypes) {
    double worst = 0;
    int cases = 0;
    for (int epilogue = 0; epilogue <= EPILOGUE_DGELU_ERF; epilogue++) {
      for (int64_t m : {3, 37}) {
        for (int64_t k : {40, 1601}) {
          for (int flags = 0; flags < 8; flags++, cases++) {
            Case c;
            const bool dgelu = epilogue >= EPILOGUE_DGELU_TANH;
            c.m = m, c.n = 67, c.k = k, c.dtype = d[0], c.y_dtype = d[1], c.epilogue = epilogue, c.trans_b = true;
            c.bias = !dgelu && (flags & 1), c.alpha = flags & 2;
            c.accumulate = (dgelu || !epilogue) && (flags & 4), c.pre = !dgelu && epilogue && (flags & 4);
            worst = std::fmax(worst, run(c, pool));
          }
        }
      }
    }
    char name[64];
    snprintf(name, sizeof name, "epilogues, bias, alpha, accumulate: %d -> %d", d[0], d[1]);
    report(name, worst, cases);
  }
}

void batches(zs::ThreadPool &pool) {
  double worst = 0;
  int cases = 0;
  for (auto &d : dtypes) {
    for (int64_t m : {1, 5, 20}) {
      for (int flags = 0; flags < 16; flags++, cases++) {
        Case c;
        c.batch = flags & 8 ? 0 : 7, c.m = m, c.n = 35, c.k = 21, c.dtype = d[0], c.y_dtype = d[1];
        c.trans_a = flags & 1, c.trans_b = flags & 2, c.shared_b = flags & 4, c.bias = true;
        worst = std::fmax(worst, run(c, pool));
      }
    }
  }
  Case large;
  large.batch = 2, large.m = 300, large.n = 330, large.k = 400, large.pre = true, large.epilogue = EPILOGUE_GELU_TANH;
  worst = std::fmax(worst, run(large, pool));
  report("batches", worst, cases + 1);
}

// K so long that the packed matrices are cut into passes over K.
void long_sums(zs::ThreadPool &pool) {
  double worst = 0;
  int cases = 0;
  for (auto &d : dtypes) {
    for (int flags = 0; flags < 2; flags++, cases++) {
      Case c;
      c.m = 10, c.n = 17, c.k = d[0] == ZS_BF16 ? 300001 : 151001, c.dtype = d[0], c.y_dtype = d[1];
      c.alpha = c.accumulate = flags & 1, c.bias = c.trans_b = !flags;
      worst = std::fmax(worst, run(c, pool));
    }
  }
  report("long sums", worst, cases);
}

void same_on_any_number_of_threads() {
  int different = 0, cases = 0;
  for (auto &d : dtypes) {
    for (int64_t m : {4, 100}) {
      std::vector<char> results[3];
      int i = 0;
      for (int threads : {1, 2, 5}) {
        zs::ThreadPool pool(threads);
        generator.seed(7);
        Case c;
        c.m = m, c.n = 1500, c.k = 900, c.dtype = d[0], c.y_dtype = d[1];
        run(c, pool, &results[i++]);
      }
      cases++;
      different += results[0] != results[1] || results[0] != results[2];
    }
  }
  report("same bits on 1, 2 and 5 threads", different ? 2 : 0, cases);
}

}  // namespace

int main() {
  zs::ThreadPool pool(2);
  sizes_and_transpositions(pool);
  epilogues(pool);
  batches(pool);
  long_sums(pool);
  same_on_any_number_of_threads();
  return failures ? 1 : 0;
}
