// CUDA's matmul on the host: cuBLASLt is mocked by plain loops over column-major matrices, so that the exchange of
// operands, the epilogues, batches, strides and what is done where cuBLASLt refuses are tested without a device.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "../../native/backend/cpu/backend.h"
#include "../../native/backend/cuda/context.h"
#include "../../native/backend/cuda/kernels.h"
#include "../../native/backend/cuda/libraries/cublaslt.h"
#include "../../native/backend/cuda/matmul.h"
#include "../../native/backend/float8.h"
#include "../../native/core/threadpool.h"
#include "../../native/ops/matmul.h"
#include "check.h"

namespace zs::cuda {

namespace {

float widen(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}

uint16_t narrow(double value) {
  float single = static_cast<float>(value);
  uint32_t bits;
  memcpy(&bits, &single, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

double get(const void *data, int type, int64_t at) {
  const uint8_t code = static_cast<const uint8_t *>(data)[at];
  if (type == CUDA_TYPE_E4M3) return std::bit_cast<float>(of_code<f8e4m3>(code));
  if (type == CUDA_TYPE_E5M2) return std::bit_cast<float>(of_code<f8e5m2>(code));
  return type == CUDA_TYPE_F32 ? static_cast<const float *>(data)[at] : widen(static_cast<const uint16_t *>(data)[at]);
}

void put(void *data, int type, int64_t at, double value) {
  if (type == CUDA_TYPE_F32) static_cast<float *>(data)[at] = static_cast<float>(value);
  else static_cast<uint16_t *>(data)[at] = narrow(value);
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double gelu_erf(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

double slope(double (*f)(double), double x) { return (f(x + 1e-5) - f(x - 1e-5)) / 2e-5; }

}  // namespace
}  // namespace zs::cuda

// The library's opaque types are the mock's own.
namespace zs::cuda {

struct LtLayoutOpaque {
  int type;
  int64_t rows, cols, ld, stride = 0;
  int32_t batch = 1;
};
struct LtDescOpaque {
  std::map<int, std::vector<char>> set;
  template <class T>
  T get(int attribute, T otherwise) const {
    auto found = set.find(attribute);
    if (found == set.end()) return otherwise;
    T value;
    CHECK(found->second.size() == sizeof value);
    memcpy(&value, found->second.data(), sizeof value);
    return value;
  }
};
struct LtPreferenceOpaque {};

namespace {

int num_heuristics = 0, num_open = 0, last_fast = -1;
bool refuse_epilogues = false;
constexpr float kConstants[2] = {0, 1};

int layout_create(LtLayout *layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  CHECK(ld >= static_cast<int64_t>(rows) && rows > 0 && cols > 0);
  *layout = new LtLayoutOpaque{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld};
  return num_open++, 0;
}

int layout_destroy(LtLayout layout) { return delete layout, num_open--, 0; }

int layout_set(LtLayout layout, int attribute, const void *value, size_t bytes) {
  const bool count = attribute == LT_LAYOUT_BATCH_COUNT;
  CHECK(count ? bytes == 4 : attribute == LT_LAYOUT_BATCH_STRIDE && bytes == 8);
  if (count) memcpy(&layout->batch, value, 4);
  else memcpy(&layout->stride, value, 8);
  return 0;
}

int desc_create(LtDesc *desc, int compute, int scale) {
  CHECK(compute == LT_COMPUTE_32F && scale == CUDA_TYPE_F32);
  *desc = new LtDescOpaque;
  return num_open++, 0;
}

int desc_destroy(LtDesc desc) { return delete desc, num_open--, 0; }

int desc_set(LtDesc desc, int attribute, const void *value, size_t bytes) {
  const char *begin = static_cast<const char *>(value);
  desc->set[attribute].assign(begin, begin + bytes);
  return 0;
}

int heuristic(LtHandle, LtDesc desc, LtLayout, LtLayout, LtLayout, LtLayout, LtPreference, int wanted,
              LtHeuristic *result, int *found) {
  CHECK(wanted >= 1);
  num_heuristics++;
  *found = refuse_epilogues && desc->get(LT_DESC_EPILOGUE, 0) != LT_EPILOGUE_NONE ? 0 : 1;
  result->workspace = 1000;
  return 0;
}

int mock_matmul(LtHandle, LtDesc desc, const void *alpha, const void *a, LtLayout la, const void *b, LtLayout lb,
                const void *beta, const void *c, LtLayout lc, void *d, LtLayout ld, const LtAlgo *, void *workspace,
                size_t bytes, void *stream) {
  CHECK(c == d && lc == ld && workspace && bytes == 1000 && stream == kConstants);
  const bool ta = desc->get<int32_t>(LT_DESC_TRANSA, 0), tb = desc->get<int32_t>(LT_DESC_TRANSB, 0);
  const bool on_device = desc->get<int32_t>(LT_DESC_POINTER_MODE, 0) == LT_POINTER_MODE_DEVICE;
  const bool constant = beta == kConstants || beta == kConstants + 1;
  CHECK(on_device == constant);
  const int32_t epilogue = desc->get<int32_t>(LT_DESC_EPILOGUE, LT_EPILOGUE_NONE);
  const double scale = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
  const int64_t rows = ld->rows, cols = ld->cols, inner = ta ? la->rows : la->cols;
  CHECK((ta ? la->cols : la->rows) == rows && (tb ? lb->cols : lb->rows) == inner && (tb ? lb->rows : lb->cols) == cols);
  // In 8 bits: both scales, the layout of Hopper, sizes that divide by 16, a result that is no code.
  const bool eight = la->type >= CUDA_TYPE_E4M3;
  const float *a_scale = desc->get<const float *>(LT_DESC_A_SCALE, nullptr), *b_scale = desc->get<const float *>(LT_DESC_B_SCALE, nullptr);
  CHECK(eight == (lb->type >= CUDA_TYPE_E4M3) && eight == (a_scale != nullptr) && eight == (b_scale != nullptr));
  last_fast = eight ? desc->get<int8_t>(LT_DESC_FAST_ACCUM, -1) : -1;
  if (eight) {
    CHECK(ta && !tb && !on_device && rows % 16 == 0 && inner % 16 == 0 && ld->type < CUDA_TYPE_E4M3);
    CHECK(la->type == CUDA_TYPE_E4M3 || lb->type == CUDA_TYPE_E4M3);
  }
  const double factor = eight ? static_cast<double>(*a_scale) * *b_scale : 1;
  const void *bias = desc->get<const void *>(LT_DESC_BIAS, nullptr);
  void *aux = desc->get<void *>(LT_DESC_AUX, nullptr);
  const int64_t aux_ld = desc->get<int64_t>(LT_DESC_AUX_LD, 0);
  CHECK((epilogue & LT_EPILOGUE_AUX) == 0 || (aux && aux_ld >= rows));
  for (int64_t i = 0; i < ld->batch; i++)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t s = 0; s < cols; s++) {
        double sum = 0;
        for (int64_t k = 0; k < inner; k++)
          sum += get(a, la->type, i * la->stride + (ta ? k + r * la->ld : r + k * la->ld)) *
                 get(b, lb->type, i * lb->stride + (tb ? s + k * lb->ld : k + s * lb->ld));
        sum *= scale * factor;
        const int64_t at = i * ld->stride + r + s * ld->ld;
        const int64_t aux_at = i * desc->get<int64_t>(LT_DESC_AUX_BATCH_STRIDE, 0) + r + s * aux_ld;
        const int aux_type = desc->get<int32_t>(LT_DESC_AUX_TYPE, ld->type);
        if (keep != 0) sum += keep * get(d, ld->type, at);
        if (epilogue != LT_EPILOGUE_NONE && (epilogue & LT_EPILOGUE_BIAS))
          sum += get(bias, desc->get<int32_t>(LT_DESC_BIAS_TYPE, ld->type), r);
        if (epilogue & LT_EPILOGUE_GELU) {
          if (epilogue & LT_EPILOGUE_AUX) put(aux, aux_type, aux_at, sum);
          sum = gelu(sum);
        }
        if (epilogue == LT_EPILOGUE_DGELU) sum *= slope(gelu, get(aux, aux_type, aux_at));
        put(d, ld->type, at, sum);
      }
  return 0;
}

const char *status_string(int) { return "a mocked status"; }

const CublasLt mock = {nullptr,        kConstants, status_string, layout_create, layout_destroy, layout_set,
                       desc_create,    desc_destroy, desc_set,
                       [](LtPreference *made) { return *made = new LtPreferenceOpaque, num_open++, 0; },
                       [](LtPreference made) { return delete made, num_open--, 0; },
                       [](LtPreference, int, const void *, size_t) { return 0; }, heuristic, mock_matmul};

ThreadPool pool(1);

int32_t on_cpu(zs_op op, zs_call *call) {
  zs_call host = *call;
  host.context = &pool;
  return zs::cpu::kernels[op](&host);
}

}  // namespace

const CublasLt *cublaslt(char *) { return &mock; }
int32_t clear(void *, void *data, size_t bytes, char *) { return memset(data, 0, bytes), ZS_OK; }
int32_t binary(zs_call *call) { return on_cpu(ZS_OP_binary, call); }
int32_t unary(zs_call *call) { return on_cpu(ZS_OP_unary, call); }
int32_t unary_backward(zs_call *call) { return on_cpu(ZS_OP_unary_backward, call); }
int32_t cast(zs_call *call) { return on_cpu(ZS_OP_cast, call); }

}  // namespace zs::cuda

namespace {

using namespace zs::cuda;

struct Array {
  Array(int dtype, int64_t count, std::mt19937 &random) : dtype(dtype), count(count) {
    bytes.resize(static_cast<size_t>(std::max<int64_t>(count, 1)) * 4);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < count; i++) put(bytes.data(), type(), i, normal(random));
  }
  int type() const { return dtype == ZS_F32 ? CUDA_TYPE_F32 : CUDA_TYPE_BF16; }
  double at(int64_t i) const { return get(bytes.data(), type(), i); }
  zs_tensor tensor() { return {bytes.data(), count, {count}, 1, dtype}; }
  int dtype;
  int64_t count;
  std::vector<char> bytes;
};

struct Case {
  int64_t batch, m, n, k;
  bool ta, tb, accumulate, shared, bias, pre, alpha;
  int epilogue, dtype, y_dtype;
};

std::vector<char> scratch(1 << 16);

int32_t run_case(const Case &c, std::mt19937 &random) {
  Array a(c.dtype, c.batch * c.m * c.k, random), b(c.dtype, (c.shared ? 1 : c.batch) * c.k * c.n, random);
  Array y(c.y_dtype, c.batch * c.m * c.n, random), before = y, pre(c.y_dtype, y.count, random), pre_in = pre;
  Array bias(c.dtype, c.n, random), alpha(ZS_F32, 1, random);
  const bool gelu_forward = c.epilogue == EPILOGUE_GELU_TANH || c.epilogue == EPILOGUE_GELU_ERF;
  const bool dgelu = c.epilogue == EPILOGUE_DGELU_TANH || c.epilogue == EPILOGUE_DGELU_ERF;
  const zs_tensor none = {nullptr, 0, {}, 0, -1};
  zs_tensor tensors[7] = {y.tensor(), gelu_forward && c.pre ? pre.tensor() : none, a.tensor(), b.tensor(),
                          c.bias ? bias.tensor() : none, dgelu ? pre_in.tensor() : none, c.alpha ? alpha.tensor() : none};
  double scalars[8] = {double(c.batch), double(c.m), double(c.n), double(c.k), double(c.ta), double(c.tb),
                       double(c.accumulate), double(c.epilogue)};
  Context context = {};
  context.workspace = [](Context *, size_t bytes) -> void * { return bytes <= scratch.size() ? scratch.data() : nullptr; };
  zs_call call = {tensors, scalars, const_cast<float *>(kConstants), &context, ""};
  if (int32_t status = matmul(&call)) return fprintf(stderr, "%s\n", call.error), status;
  auto f = c.epilogue == EPILOGUE_GELU_ERF || c.epilogue == EPILOGUE_DGELU_ERF ? gelu_erf : gelu;
  const double close = c.y_dtype == ZS_F32 ? 1e-4 : 0.03;
  for (int64_t i = 0; i < c.batch; i++)
    for (int64_t r = 0; r < c.m; r++)
      for (int64_t s = 0; s < c.n; s++) {
        double sum = 0;
        for (int64_t k = 0; k < c.k; k++)
          sum += a.at(i * c.m * c.k + (c.ta ? k * c.m + r : r * c.k + k)) *
                 b.at((c.shared ? 0 : i * c.k * c.n) + (c.tb ? s * c.k + k : k * c.n + s));
        const int64_t at = (i * c.m + r) * c.n + s;
        if (c.alpha) sum *= alpha.at(0);
        if (c.bias) sum += bias.at(s);
        const double magnitude = 1 + std::fabs(sum);
        if (gelu_forward && c.pre) CHECK(std::fabs(pre.at(at) - sum) <= close * magnitude);
        if (gelu_forward) sum = f(sum);
        if (dgelu) sum *= slope(f, pre_in.at(at));
        if (c.accumulate) sum += before.at(at);
        if (!(std::fabs(y.at(at) - sum) <= close * (magnitude + std::fabs(sum))))
          return fprintf(stderr, "epilogue %d at (%ld,%ld,%ld): %g, not %g\n", c.epilogue, i, r, s, y.at(at), sum), -1;
      }
  return 0;
}

void every_call_is_as_the_contract_says(bool refuse) {
  refuse_epilogues = refuse;
  std::mt19937 random(refuse ? 7 : 3);
  auto flip = [&random] { return random() % 2 == 0; };
  int num_cases = 0;
  for (int i = 0; i < 3000; i++) {
    const int dtype = flip() ? ZS_F32 : ZS_BF16;
    Case c = {int64_t(1 + random() % 3), int64_t(1 + random() % 9), int64_t(1 + random() % 9), int64_t(random() % 9),
              flip(), flip(), flip(), flip(), flip(), flip(), flip(), int(random() % 5), dtype,
              flip() ? dtype : int(ZS_F32)};
    if (c.batch == 1) c.shared = false;
    const bool forward = c.epilogue == EPILOGUE_GELU_TANH || c.epilogue == EPILOGUE_GELU_ERF;
    if (forward) c.accumulate = false;
    if (c.epilogue >= EPILOGUE_DGELU_TANH) c.bias = c.accumulate = false;
    CHECK(run_case(c, random) == 0);
    num_cases++;
  }
  CHECK(num_open == 0 && num_cases == 3000);
}

void a_shape_is_asked_about_once() {
  refuse_epilogues = false;
  const Case c = {1, 32, 16, 64, false, true, false, false, true, true, false, EPILOGUE_GELU_TANH, ZS_BF16, ZS_BF16};
  const int before = num_heuristics;
  for (int i = 0; i < 200; i++) {
    std::mt19937 random(1);
    CHECK(run_case(c, random) == 0);
  }
  CHECK(num_heuristics > before && num_heuristics - before < 40);  // once for each alignment that memory happens to have
}

void misuse_is_refused() {
  std::mt19937 random(1);
  CHECK(run_case({1, 2, 2, 2, false, false, true, false, false, false, false, EPILOGUE_GELU_TANH, ZS_F32, ZS_F32},
                 random) == ZS_BAD_ARGUMENT);
  CHECK(run_case({1, 2, 2, 2, false, false, false, false, true, false, false, EPILOGUE_DGELU_ERF, ZS_F32, ZS_F32},
                 random) == ZS_BAD_ARGUMENT);
  CHECK(run_case({1, 2, 2, 2, false, false, true, false, false, false, false, EPILOGUE_DGELU_ERF, ZS_F32, ZS_F32},
                 random) == ZS_UNSUPPORTED);
  CHECK(run_case({1, 0, 2, 2, false, false, false, false, false, false, false, EPILOGUE_NONE, ZS_F32, ZS_F32},
                 random) == ZS_OK);
}

int32_t run_eight(int a_dtype, int b_dtype, int y_dtype, int64_t m, int64_t n, int64_t k, bool accumulate, bool with_bias, bool fast,
                  int capability, std::mt19937 &random) {
  std::vector<uint8_t> a(static_cast<size_t>(m * k) + 1), b(static_cast<size_t>(n * k) + 1);
  for (std::vector<uint8_t> *codes : {&a, &b})
    for (uint8_t &code : *codes) code = static_cast<uint8_t>(random() % 0x78 | random() % 2 << 7);
  Array y(y_dtype, m * n, random), before = y, bias(y_dtype, n, random);
  alignas(16) const float inverses[] = {0x1.4p-8f, 0, 0, 0, 0x1.cp-7f};  // 16 bytes apart
  zs_tensor tensors[] = {y.tensor(), {a.data(), m * k, {m * k}, 1, a_dtype}, {b.data(), n * k, {n * k}, 1, b_dtype},
                         {const_cast<float *>(inverses), 1, {1}, 1, ZS_F32}, {const_cast<float *>(inverses + 4), 1, {1}, 1, ZS_F32},
                         with_bias ? bias.tensor() : zs_tensor{nullptr, 0, {}, 0, -1}};
  double scalars[] = {double(m), double(n), double(k), double(accumulate), double(fast)};
  Context context = {};
  context.capability = capability;
  context.workspace = [](Context *, size_t bytes) -> void * { return bytes <= scratch.size() ? scratch.data() : nullptr; };
  zs_call call = {tensors, scalars, const_cast<float *>(kConstants), &context, ""};
  last_fast = -1;
  if (int32_t status = fp8_matmul(&call)) {
    CHECK(strlen(call.error) > 20);
    return status;
  }
  if (m > 0 && k > 0) CHECK(last_fast == fast);
  auto type = [](int dtype) { return dtype == ZS_F8E4M3 ? CUDA_TYPE_E4M3 : CUDA_TYPE_E5M2; };
  for (int64_t r = 0; r < m; r++)
    for (int64_t s = 0; s < n; s++) {
      double sum = 0, magnitude = 1;
      for (int64_t l = 0; l < k; l++) {
        const double product = get(a.data(), type(a_dtype), r * k + l) * get(b.data(), type(b_dtype), s * k + l) * inverses[0] * inverses[4];
        sum += product, magnitude += std::fabs(product);
      }
      const double want = sum + (with_bias ? bias.at(s) : 0) + (accumulate ? before.at(r * n + s) : 0);
      CHECK(std::fabs(y.at(r * n + s) - want) <= (y_dtype == ZS_F32 ? 1e-5 : 0.01) * (magnitude + std::fabs(want)));
    }
  return ZS_OK;
}

void products_in_eight_bits(bool refuse) {
  refuse_epilogues = refuse;
  std::mt19937 random(11);
  auto flip = [&random] { return random() % 2 == 0; };
  for (int i = 0; i < 300; i++) {
    const int a = flip() ? ZS_F8E4M3 : ZS_F8E5M2, b = a == ZS_F8E5M2 || flip() ? ZS_F8E4M3 : ZS_F8E5M2, y = flip() ? ZS_F32 : ZS_BF16;
    const int64_t m = int64_t(random() % 20), n = int64_t(16 * (1 + random() % 2)), k = int64_t(16 * (random() % 3));
    CHECK(run_eight(a, b, y, m, n, k, flip(), y != ZS_F32 && flip(), flip(), flip() ? 89 : 90, random) == ZS_OK);
  }
  CHECK(num_open == 0);
  CHECK(run_eight(ZS_F8E4M3, ZS_F8E4M3, ZS_F32, 4, 16, 16, false, false, false, 80, random) == ZS_UNSUPPORTED);
  CHECK(run_eight(ZS_F8E4M3, ZS_F8E4M3, ZS_F32, 4, 24, 16, false, false, false, 90, random) == ZS_UNSUPPORTED);
  CHECK(run_eight(ZS_F8E4M3, ZS_F8E4M3, ZS_F32, 4, 16, 40, false, false, false, 90, random) == ZS_UNSUPPORTED);
  CHECK(run_eight(ZS_F8E5M2, ZS_F8E5M2, ZS_F32, 4, 16, 16, false, false, false, 90, random) == ZS_UNSUPPORTED);
  CHECK(run_eight(ZS_F8E4M3, ZS_F8E4M3, ZS_F32, 4, 16, 16, false, true, false, 90, random) == ZS_BAD_ARGUMENT);
}

}  // namespace

int main() {
  every_call_is_as_the_contract_says(false);
  every_call_is_as_the_contract_says(true);
  a_shape_is_asked_about_once();
  misuse_is_refused();
  products_in_eight_bits(false);
  products_in_eight_bits(true);
  puts("lt_matmul_test: ok");
  return 0;
}
