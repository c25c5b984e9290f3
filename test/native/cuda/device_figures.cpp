// Times of gpu_runner: medians of wall time over queued launches, as shares of what the same run measures: a copy, and the
// largest product of the element type.
#include <chrono>

#include "../../../native/ops/attention.h"
#include "../../../native/ops/matmul.h"
#include "../../../native/ops/random.h"
#include "device_gpu.h"

namespace test {
namespace {

// A tensor without values from the host: floats are drawn on the device, the rest is 0.
struct Tensor {
  int dtype;
  std::vector<int64_t> dims;
};

struct Figure {
  zs_op op;
  std::string what;
  std::vector<Tensor> tensors;
  std::vector<double> scalars;
  double bytes, flops;  // of one launch
};

void draw(const zs_tensor &t) {
  if (t.dtype < 0) return;
  works(backend->zero(&stream, t.data, static_cast<size_t>(t.count * size_of(t.dtype)), error), "zero");
  if (t.dtype > ZS_F16) return;
  const std::vector<double> scalars = {1, 0, 1, 5, 7, 0};
  zs_call call{};
  call.tensors = &t, call.scalars = scalars.data(), call.stream = stream.native, call.context = stream.context;
  if (backend->kernels[ZS_OP_random_fill](&call) != ZS_OK) expect(false, std::string("random_fill: ") + call.error);
}

bool once = false;  // where times mean nothing

// Seconds of one launch: median of 7 turns.
double seconds_of(const Figure &f) {
  std::vector<zs_tensor> tensors;
  for (const Tensor &t : f.tensors) {
    Value v;
    v.dtype = t.dtype, v.dims = t.dims;
    char *memory = t.dtype < 0 ? nullptr : static_cast<char *>(backend->allocate(static_cast<size_t>(v.count() * size_of(t.dtype))));
    if (t.dtype >= 0 && !memory) return expect(false, f.what + ": no device memory"), 0;
    tensors.push_back(tensor_of(v, memory));
    draw(tensors.back());
  }
  zs_call call{};
  call.tensors = tensors.data(), call.scalars = f.scalars.data(), call.stream = stream.native, call.context = stream.context;
  const auto run = [&](int times) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < times; i++)
      if (backend->kernels[f.op](&call) != ZS_OK) return expect(false, f.what + ": " + call.error), 0.0;
    works(backend->stream_synchronize(&stream, error), f.what);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / times;
  };
  std::vector<double> turns = {run(1)};
  if (!once) {
    const int times = std::clamp(static_cast<int>(0.03 / std::max(run(2), 1e-6)), 3, 200);
    turns.clear();
    for (int i = 0; i < 7; i++) turns.push_back(run(times));
  }
  for (const zs_tensor &t : tensors)
    if (t.data) backend->release(t.data, static_cast<size_t>(t.count * size_of(t.dtype)));
  std::sort(turns.begin(), turns.end());
  return turns[turns.size() / 2];
}

Figure attention_figure(bool backward, int64_t b, int64_t t, int64_t hq, int64_t hkv, int64_t d, double p) {
  const int64_t row = (hq + 2 * hkv) * d, q = hq * d, kv = hkv * d;
  std::vector<double> scalars = {double(b), double(t), double(t), double(hq), double(hkv), double(d), 0.1, 1, 0};
  for (int64_t offset : {int64_t{0}, q, q + kv}) scalars.insert(scalars.end(), {double(offset), double(row), double(t * row)});
  scalars.insert(scalars.end(), {p, 1, 2, 0, 0, double(hq), 0, 0, double(t), 0, 0, double(t)});
  const Tensor packed{ZS_BF16, {b, t, row}}, dense{ZS_BF16, {b, t, q}}, lse{ZS_F32, {b, hq, t}};
  const std::string what = std::to_string(b) + " x " + std::to_string(t) + ", " + std::to_string(hq) + "/" + std::to_string(hkv) +
                           " heads of " + std::to_string(d) + (p > 0 ? ", dropout" : "");
  const double flops = 2.0 * double(b * hq * t * t * d);  // causal: half of 4 b h t t d
  if (backward)
    return {ZS_OP_attention_backward, "attention backward " + what, {packed, packed, packed, dense, packed, packed, packed, dense, lse},
            scalars, 0, 2.5 * flops};
  return {ZS_OP_attention_forward, "attention forward " + what, {dense, lse, packed, packed, packed}, scalars, 0, flops};
}

Figure matmul_figure(int dtype, int64_t m, int64_t n, int64_t k, bool trans_a = false, bool trans_b = false, bool bias = false) {
  const Tensor none{-1, {}};
  const std::string what = std::string("matmul ") + (dtype == ZS_F32 ? "f32 " : "bf16 ") + std::to_string(m) + " x " + std::to_string(n) +
                           " x " + std::to_string(k) + (trans_a ? ", weight" : trans_b ? ", transposed b" : "") + (bias ? ", bias" : "");
  const double flops = 2.0 * double(m) * double(n) * double(k);
  return {ZS_OP_matmul, what,
          {{trans_a ? ZS_F32 : dtype, {m, n}}, none, {dtype, trans_a ? std::vector<int64_t>{k, m} : std::vector<int64_t>{m, k}},
           {dtype, trans_b ? std::vector<int64_t>{n, k} : std::vector<int64_t>{k, n}}, bias ? Tensor{dtype, {n}} : none, none, none},
          {1, double(m), double(n), double(k), double(trans_a), double(trans_b), 0, EPILOGUE_NONE}, 0, flops};
}

struct Sizes {
  int64_t copy, product, parameters, rows, cols, vocab, width, time, batch;
};
constexpr Sizes kFull = {1 << 28, 8192, 124439808, 16384, 4096, 50304, 768, 4096, 4};
constexpr Sizes kSmall = {4096, 32, 5000, 16, 512, 512, 64, 64, 1};

std::vector<Figure> by_bandwidth(const Sizes &size) {
  const double r = double(size.rows), c = double(size.cols), m = double(size.parameters), v = double(size.vocab), w = double(size.width);
  const Tensor none{-1, {}}, f32{ZS_F32, {size.parameters}}, half{ZS_BF16, {size.parameters}}, one{ZS_F32, {1}};
  const Tensor matrix{ZS_BF16, {size.rows, size.cols}}, line{ZS_F32, {size.rows}}, ids{ZS_I32, {size.rows}};
  const Tensor weight{ZS_BF16, {size.cols}}, sum{ZS_F32, {size.cols}};
  const std::vector<double> adamw = {1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1, 1, 1, 0};
  return {
      {ZS_OP_adamw, "adamw, bf16 gradient and copy", {f32, f32, f32, half, half, none}, adamw, 28 * m, 0},
      {ZS_OP_adamw, "adamw, f32 gradient", {f32, f32, f32, half, f32, none}, adamw, 30 * m, 0},
      {ZS_OP_absmax, "absmax bf16", {one, half}, {}, 2 * m, 0},
      {ZS_OP_layer_norm_forward, "layer_norm forward", {matrix, line, line, none, matrix, weight, weight, none}, {r, c, 1e-5}, 4 * r * c, 0},
      {ZS_OP_rms_norm_forward, "rms_norm forward", {matrix, line, none, matrix, weight, none}, {r, c, 1e-5}, 4 * r * c, 0},
      {ZS_OP_rms_norm_forward, "rms_norm forward, residual", {matrix, line, matrix, matrix, weight, matrix}, {r, c, 1e-5}, 8 * r * c, 0},
      {ZS_OP_layer_norm_backward, "layer_norm backward", {matrix, sum, sum, matrix, matrix, weight, line, line, none}, {r, c}, 6 * r * c, 0},
      {ZS_OP_rms_norm_backward, "rms_norm backward", {matrix, sum, matrix, matrix, weight, line, none}, {r, c}, 6 * r * c, 0},
      {ZS_OP_softmax_forward, "softmax forward", {matrix, matrix}, {r, c, 0}, 4 * r * c, 0},
      {ZS_OP_classifier, "classifier", {{ZS_BF16, {size.rows, size.vocab}}, line, none, ids}, {r, v, v, -100, 1, 1}, 4 * r * v, 0},
      {ZS_OP_unary, "gelu", {matrix, matrix}, {0}, 4 * r * c, 0},
      {ZS_OP_binary, "add", {matrix, matrix, matrix}, {0}, 6 * r * c, 0},
      {ZS_OP_swiglu_backward, "swiglu backward", {matrix, matrix, matrix, matrix, matrix}, {}, 10 * r * c, 0},
      {ZS_OP_dropout, "dropout", {matrix, matrix}, {0.1, 1, 2, r, c, c, 0, 0, c, 0}, 4 * r * c, 0},
      {ZS_OP_embedding_backward, "embedding backward, one id", {{ZS_F32, {size.vocab, size.width}}, {ZS_BF16, {size.rows, size.width}}, ids},
       {r, w, 0, v}, 2 * r * w, 0},
      {ZS_OP_permute, "permute, transposed", {{ZS_BF16, {size.cols, size.rows}}, matrix}, {1, 0, 0, 0, 0, 0, 0, 0}, 4 * r * c, 0},
  };
}

std::vector<Figure> by_products(const Sizes &size) {
  const int64_t r = size.rows, w = size.width, t = size.time, b = size.batch;
  return {
      matmul_figure(ZS_BF16, r, 3 * w, w, false, true, true), matmul_figure(ZS_BF16, r, 4 * w, w, false, true, true),
      matmul_figure(ZS_BF16, r, w, 4 * w, false, true, true), matmul_figure(ZS_BF16, r, w, 4 * w),
      matmul_figure(ZS_BF16, 4 * w, w, r, true), matmul_figure(ZS_BF16, r, size.vocab, w, false, true),
      attention_figure(false, b, t, 16, 16, 128, 0), attention_figure(true, b, t, 16, 16, 128, 0),
      attention_figure(false, b, t, 32, 8, 128, 0), attention_figure(false, 4 * b, t / 4, 12, 12, 64, 0),
      attention_figure(true, 4 * b, t / 4, 12, 12, 64, 0), attention_figure(false, 4 * b, t / 4, 12, 12, 64, 0.1),
      attention_figure(true, 4 * b, t / 4, 12, 12, 64, 0.1),
  };
}

}  // namespace

void figures(bool small) {
  zs_device_info info{};
  if (!works(backend->device_info(0, &info, error), "device_info")) return;
  const Sizes &size = small ? kSmall : kFull;
  once = small;
  const double n = double(size.copy);
  const Figure copy{ZS_OP_copy_2d, "copy", {{ZS_F32, {size.copy}}, {ZS_F32, {size.copy}}}, {1, n, 0, n, 0, n}, 8 * n, 0};
  const double speed = copy.bytes / seconds_of(copy);
  printf("\n%s, driver %d: a copy of %.0f MB moves %.0f GB/s\n", info.name, info.driver, 4 * n / 1e6, speed / 1e9);
  double most = 0;
  for (int dtype : {ZS_F32, ZS_BF16}) {
    const Figure largest = matmul_figure(dtype, size.product, size.product, size.product);
    most = largest.flops / seconds_of(largest);
    printf("%s: %.1f TFLOP/s\n", largest.what.c_str(), most / 1e12);
  }
  for (const Figure &f : by_bandwidth(size)) {
    const double time = seconds_of(f);
    printf("%-60s %9.1f us %8.0f GB/s    %5.2f of the copy\n", f.what.c_str(), time * 1e6, f.bytes / time / 1e9, f.bytes / time / speed);
  }
  for (const Figure &f : by_products(size)) {
    const double time = seconds_of(f);
    printf("%-60s %9.1f us %8.1f TFLOP/s %5.2f of the product\n", f.what.c_str(), time * 1e6, f.flops / time / 1e12, f.flops / time / most);
  }
}

}  // namespace test
