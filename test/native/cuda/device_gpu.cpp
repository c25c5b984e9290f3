// The device of check.h as a GPU, through the backend's C ABI alone: gpu_runner [libzeroshard_cuda13.so]. Without a device
// it says why and ends with 77. After the cases it prints times: medians of wall time over queued launches, as shares
// of a copy measured beside them.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../../native/ops/attention.h"
#include "../../../native/ops/random.h"
#include "check.h"

namespace test {
namespace {

const zs_backend *backend = nullptr;
zs_stream stream{};
char error[ZS_ERROR_BYTES] = "";

bool works(int32_t status, const std::string &what) {
  expect(status == ZS_OK, what + ": " + error);
  return status == ZS_OK;
}

constexpr size_t kGuard = 256;
constexpr char kFill = 0x5b;

// Device memory with bytes before and behind that must stay as they are.
class Memory {
 public:
  Memory(const std::vector<char> &bytes, size_t shift) : image_(bytes.size() + 2 * kGuard, kFill), shift_(shift), size_(bytes.size()) {
    if (size_ > 0) memcpy(image_.data() + kGuard - shift_, bytes.data(), size_);
    base_ = static_cast<char *>(backend->allocate(image_.size()));
    if (!base_) fprintf(stderr, "no device memory for %zu bytes\n", image_.size()), exit(1);
    works(backend->copy(&stream, base_, image_.data(), image_.size(), ZS_TO_DEVICE, error), "copy to the device");
  }
  ~Memory() { backend->release(base_, image_.size()); }
  Memory(const Memory &) = delete;
  char *data() const { return base_ + kGuard - shift_; }
  // False where a byte beside the tensor has changed.
  bool read(std::vector<char> &bytes) {
    works(backend->copy(&stream, image_.data(), base_, image_.size(), ZS_TO_HOST, error), "copy to the host");
    if (size_ > 0) memcpy(bytes.data(), image_.data() + kGuard - shift_, size_);
    const auto junk = [&](size_t from, size_t to) { return std::all_of(image_.begin() + long(from), image_.begin() + long(to), [](char c) { return c == kFill; }); };
    return junk(0, kGuard - shift_) && junk(kGuard - shift_ + size_, image_.size());
  }

 private:
  std::vector<char> image_;
  size_t shift_, size_;
  char *base_;
};

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
  run(2);
  const int times = std::clamp(static_cast<int>(0.03 / std::max(run(1), 1e-6)), 3, 200);
  std::vector<double> turns;
  for (int i = 0; i < 7; i++) turns.push_back(run(times));
  for (const zs_tensor &t : tensors)
    if (t.data) backend->release(t.data, static_cast<size_t>(t.count * size_of(t.dtype)));
  std::sort(turns.begin(), turns.end());
  return turns[3];
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

std::vector<Figure> all_figures() {
  const int64_t n = 124439808, rows = 16384, cols = 4096, vocab = 50304;
  const double r = double(rows), c = double(cols), m = double(n), v = double(vocab);
  const Tensor none{-1, {}}, f32{ZS_F32, {n}}, half{ZS_BF16, {n}}, one{ZS_F32, {1}}, matrix{ZS_BF16, {rows, cols}}, line{ZS_F32, {rows}};
  const Tensor weight{ZS_BF16, {cols}}, sum{ZS_F32, {cols}}, ids{ZS_I32, {rows}};
  const std::vector<double> adamw = {1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1, 1, 1, 0};
  return {
      {ZS_OP_adamw, "adamw 124M, bf16 gradient and copy", {f32, f32, f32, half, half, none}, adamw, 28 * m, 0},
      {ZS_OP_adamw, "adamw 124M, f32 gradient", {f32, f32, f32, half, f32, none}, adamw, 30 * m, 0},
      {ZS_OP_absmax, "absmax 124M bf16", {one, half}, {}, 2 * m, 0},
      {ZS_OP_layer_norm_forward, "layer_norm forward", {matrix, line, line, none, matrix, weight, weight, none}, {r, c, 1e-5}, 4 * r * c, 0},
      {ZS_OP_rms_norm_forward, "rms_norm forward", {matrix, line, none, matrix, weight, none}, {r, c, 1e-5}, 4 * r * c, 0},
      {ZS_OP_rms_norm_forward, "rms_norm forward, residual", {matrix, line, matrix, matrix, weight, matrix}, {r, c, 1e-5}, 8 * r * c, 0},
      {ZS_OP_layer_norm_backward, "layer_norm backward", {matrix, sum, sum, matrix, matrix, weight, line, line, none}, {r, c}, 6 * r * c, 0},
      {ZS_OP_rms_norm_backward, "rms_norm backward", {matrix, sum, matrix, matrix, weight, line, none}, {r, c}, 6 * r * c, 0},
      {ZS_OP_classifier, "classifier 16384 x 50304", {{ZS_BF16, {rows, vocab}}, line, none, ids}, {r, v, v, -100, 1, 1}, 4 * r * v, 0},
      {ZS_OP_unary, "gelu", {matrix, matrix}, {0}, 4 * r * c, 0},
      {ZS_OP_swiglu_backward, "swiglu backward", {matrix, matrix, matrix, matrix, matrix}, {}, 10 * r * c, 0},
      {ZS_OP_dropout, "dropout", {matrix, matrix}, {0.1, 1, 2, r, c, c, 0, 0, c, 0}, 4 * r * c, 0},
      {ZS_OP_embedding_backward, "embedding backward, one id", {{ZS_F32, {vocab, 768}}, {ZS_BF16, {rows, 768}}, ids}, {r, 768, 0, v},
       2 * r * 768, 0},
      attention_figure(false, 4, 4096, 16, 16, 128, 0), attention_figure(true, 4, 4096, 16, 16, 128, 0),
      attention_figure(false, 4, 4096, 32, 8, 128, 0), attention_figure(false, 16, 1024, 12, 12, 64, 0),
      attention_figure(true, 16, 1024, 12, 12, 64, 0), attention_figure(false, 16, 1024, 12, 12, 64, 0.1),
      attention_figure(true, 16, 1024, 12, 12, 64, 0.1),
  };
}

}  // namespace

int device_open() {
  const char *path = getenv("ZEROSHARD_CUDA") ? getenv("ZEROSHARD_CUDA") : "./build/Release/libzeroshard_cuda13.so";
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return fprintf(stderr, "%s; ZEROSHARD_CUDA names the library\n", dlerror()), 1;
  const auto open = reinterpret_cast<zs_backend_open_function>(dlsym(library, ZS_BACKEND_OPEN));
  if (!open) return fprintf(stderr, "%s: no %s in it\n", path, ZS_BACKEND_OPEN), 1;
  backend = open(ZS_BACKEND_ABI, 0, error, sizeof error);
  if (!backend) return fprintf(stderr, "no device: %s\n", error), 77;
  if (backend->abi != ZS_BACKEND_ABI || backend->struct_size != sizeof(zs_backend)) return fprintf(stderr, "%s is of another build\n", path), 1;
  if (backend->attach && backend->attach(error) != ZS_OK) return fprintf(stderr, "attach: %s\n", error), 1;
  if (backend->stream_create(0, &stream, error) != ZS_OK) return fprintf(stderr, "stream: %s\n", error), 1;
  return 0;
}

bool device_has(zs_op op) { return backend->kernels[op] != nullptr; }

std::vector<Value> run_device(const Case &c, bool unaligned, bool) {
  std::vector<Memory *> memory;
  std::vector<zs_tensor> tensors;
  for (const Value &v : c.tensors) {
    memory.push_back(new Memory(v.bytes, unaligned && v.dtype >= 0 ? static_cast<size_t>(size_of(v.dtype)) : 0));
    tensors.push_back(tensor_of(v, v.same_as >= 0 ? memory[static_cast<size_t>(v.same_as)]->data() : memory.back()->data()));
  }
  zs_call call = call_of(c, tensors, stream.context);
  call.stream = stream.native;
  if (backend->kernels[c.op](&call) != ZS_OK) expect(false, title(c) + ": " + call.error);
  const int32_t status = backend->stream_synchronize(&stream, error);
  if (c.told == kNothing) works(status, title(c));
  else expect(status != ZS_OK && strstr(error, std::to_string(c.told).c_str()), title(c) + ": is not told of, but: " + error);
  std::vector<Value> values = c.tensors;
  for (size_t i = 0; i < values.size(); i++) {
    if (values[i].dtype < 0) continue;
    if (!memory[i]->read(values[i].bytes)) expect(false, title(c) + ": writes beside tensor " + std::to_string(i));
    if (values[i].same_as >= 0) values[i].bytes = values[static_cast<size_t>(values[i].same_as)].bytes;
  }
  for (Memory *m : memory) delete m;
  return values;
}

void figures() {
  zs_device_info info{};
  if (!works(backend->device_info(0, &info, error), "device_info")) return;
  const int64_t n = 1 << 28;
  const Figure copy{ZS_OP_copy_2d, "copy 1 GiB", {{ZS_F32, {n}}, {ZS_F32, {n}}}, {1, double(n), 0, double(n), 0, double(n)}, 8.0 * double(n), 0};
  const double speed = copy.bytes / seconds_of(copy);
  printf("\n%s, driver %d: a copy moves %.0f GB/s\n", info.name, info.driver, speed / 1e9);
  for (const Figure &f : all_figures()) {
    const double time = seconds_of(f);
    if (f.bytes > 0) printf("%-48s %9.1f us %8.0f GB/s %5.2f of copy\n", f.what.c_str(), time * 1e6, f.bytes / time / 1e9, f.bytes / time / speed);
    else printf("%-60s %9.1f us %8.1f TFLOP/s\n", f.what.c_str(), time * 1e6, f.flops / time / 1e12);
  }
}

}  // namespace test
