// Of check.h what is the same for the shim and for a GPU: values, the CPU's answer, the comparison, main.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <random>

#include "../../../native/backend/cpu/backend.h"
#include "../../../native/backend/cpu/float16.h"
#include "../../../native/backend/float8.h"
#include "../../../native/core/threadpool.h"

namespace test {
namespace {

const char *const names[] = {
#define ZS_OP(name, outputs, inputs, scalars) #name,
#include "../../../native/ops/ops.def"
#undef ZS_OP
};
struct Shape { size_t tensors, scalars; };
const Shape shapes[] = {
#define ZS_OP(name, outputs, inputs, scalars) {outputs + inputs, scalars},
#include "../../../native/ops/ops.def"
#undef ZS_OP
};

std::mt19937_64 generator(7);
int num_failures = 0;
std::map<std::string, std::pair<int, double>> done;  // cases and largest error of each operation

// What the CPU makes of the same values.
std::vector<Value> run_host(const Case &c, int32_t &status) {
  static zs::ThreadPool pool(1);
  std::vector<Value> values = c.tensors;
  std::vector<zs_tensor> tensors;
  for (Value &v : values) tensors.push_back(tensor_of(v, v.same_as >= 0 ? values[static_cast<size_t>(v.same_as)].bytes.data() : v.bytes.data()));
  zs_call call = call_of(c, tensors, &pool);
  status = zs::cpu::kernels[c.op](&call);
  if (status != ZS_OK && c.told == kNothing) expect(false, title(c) + ": the CPU says " + call.error);
  for (Value &v : values)
    if (v.same_as >= 0) v.bytes = values[static_cast<size_t>(v.same_as)].bytes;
  return values;
}

double error_of(const Value &got, const Value &want) {
  double worst = 0;
  for (int64_t i = 0; i < want.count(); i++) {
    const double a = got.get(i), b = want.get(i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    const double error = std::fabs(a - b) / std::fmax(1, std::fabs(b));
    worst = std::isnan(error) ? INFINITY : std::fmax(worst, error);
  }
  return worst;
}

void compare(const Case &c, const std::vector<Value> &got, const std::vector<Value> &want, const char *where) {
  for (size_t i = 0; i < got.size(); i++) {
    const Value &v = want[i];
    if (v.dtype < 0) continue;
    const bool output = static_cast<int>(i) < c.outputs || (v.same_as >= 0 && v.same_as < c.outputs);
    const std::string what = title(c) + ": tensor " + std::to_string(i) + ", " + where;
    if (!output) {
      expect(got[i].bytes == c.tensors[i].bytes, what + ": an input has changed");
      continue;
    }
    const double error = error_of(got[i], v), place = v.dtype == ZS_BF16 ? 0x1p-7 : v.dtype == ZS_F16 ? 0x1p-10 : 0;
    std::pair<int, double> &known = done[names[c.op]];
    if (v.dtype == ZS_F32) known.second = std::fmax(known.second, error);
    const bool right = c.f32 == kExact ? error == 0 : error <= c.f32 + place;
    expect(right, what + ": error " + std::to_string(error));
  }
}

}  // namespace

zs_call call_of(const Case &c, const std::vector<zs_tensor> &tensors, void *context) {
  zs_call call{};
  call.tensors = tensors.data();
  call.scalars = c.scalars.data();
  call.context = context;
  return call;
}

zs_tensor tensor_of(const Value &v, char *memory) {
  zs_tensor t{};
  t.dtype = v.dtype;
  if (v.dtype < 0) return t;
  t.data = memory;
  t.count = v.count();
  t.ndim = static_cast<int32_t>(v.dims.size());
  for (size_t d = 0; d < v.dims.size(); d++) t.dims[d] = v.dims[d];
  return t;
}

std::string title(const Case &c) { return std::string(names[c.op]) + (c.note.empty() ? "" : ", " + c.note); }

int64_t size_of(int dtype) {
  constexpr int64_t bytes[] = {4, 2, 2, 4, 1, 8, 1, 1};
  return bytes[dtype];
}

int64_t Value::count() const {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

double Value::get(int64_t i) const {
  const char *p = bytes.data() + i * size_of(dtype);
  const auto read = [p]<class T>(T x) {
    memcpy(&x, p, sizeof x);
    return x;
  };
  switch (dtype) {
    case ZS_F32: return read(float{});
    case ZS_BF16: return zs::cpu::to_float(read(zs::cpu::bf16{}));
    case ZS_F16: return zs::cpu::to_float(read(zs::cpu::f16{}));
    case ZS_I32: return read(int32_t{});
    case ZS_U8: return read(uint8_t{});
    case ZS_F8E4M3: return std::bit_cast<float>(zs::of_code<zs::f8e4m3>(read(uint8_t{})));
    case ZS_F8E5M2: return std::bit_cast<float>(zs::of_code<zs::f8e5m2>(read(uint8_t{})));
    default: return static_cast<double>(read(int64_t{}));
  }
}

void Value::set(int64_t i, double x) {
  char *p = bytes.data() + i * size_of(dtype);
  const auto put = [p](auto y) { memcpy(p, &y, sizeof y); };
  switch (dtype) {
    case ZS_F32: return put(static_cast<float>(x));
    case ZS_BF16: return put(zs::cpu::to_bf16(static_cast<float>(x)));
    case ZS_F16: return put(zs::cpu::to_f16(static_cast<float>(x)));
    case ZS_I32: return put(static_cast<int32_t>(x));
    case ZS_U8: return put(static_cast<uint8_t>(x));
    case ZS_F8E4M3: return put(zs::to_code<zs::f8e4m3>(std::bit_cast<uint32_t>(static_cast<float>(x))));
    case ZS_F8E5M2: return put(zs::to_code<zs::f8e5m2>(std::bit_cast<uint32_t>(static_cast<float>(x))));
    default: return put(static_cast<int64_t>(x));
  }
}

Value absent() { return {}; }
Value constant(int dtype, std::vector<int64_t> dims, double value) {
  Value v;
  v.dtype = dtype;
  v.dims = std::move(dims);
  v.bytes.resize(static_cast<size_t>(v.count() * size_of(dtype)));
  for (int64_t i = 0; i < v.count(); i++) v.set(i, value);
  return v;
}
Value normal(int dtype, std::vector<int64_t> dims, double scale) {
  Value v = constant(dtype, std::move(dims), 0);
  std::normal_distribution<double> draw(0, scale);
  for (int64_t i = 0; i < v.count(); i++) v.set(i, draw(generator));
  return v;
}
int64_t pick(int64_t begin, int64_t end) { return std::uniform_int_distribution<int64_t>(begin, end - 1)(generator); }
Value integers(std::vector<int64_t> dims, int64_t begin, int64_t end) {
  Value v = constant(ZS_I32, std::move(dims), 0);
  for (int64_t i = 0; i < v.count(); i++) v.set(i, static_cast<double>(pick(begin, end)));
  return v;
}
Value same(Value value, int as) {
  value.same_as = as;
  return value;
}

void check(const Case &c) {
  const Shape &shape = shapes[c.op];
  if (!device_has(c.op)) return expect(false, title(c) + ": not there");
  if (c.tensors.size() != shape.tensors || c.scalars.size() != shape.scalars)
    return expect(false, title(c) + ": the test gives wrong arguments");
  done[names[c.op]].first++;
  int32_t status = ZS_OK;
  const std::vector<Value> want = run_host(c, status);
  expect((status == ZS_BAD_ARGUMENT) == (c.told != kNothing), title(c) + ": the CPU refuses what the device tells of");
  for (bool at_end : {false, true}) {
    const std::vector<Value> got = run_device(c, at_end, false), again = run_device(c, at_end, true);
    for (size_t i = 0; i < got.size(); i++)
      expect(got[i].bytes == again[i].bytes, title(c) + ": tensor " + std::to_string(i) + " depends on the threads' order");
    if (c.told == kNothing) compare(c, got, want, at_end ? "unaligned" : "aligned");
  }
}

void expect(bool right, const std::string &what) {
  if (right) return;
  if (++num_failures <= 40) printf("FAILED: %s\n", what.c_str());
}
int failures() { return num_failures; }

void summary(bool all) {
  for (int op = 0; op < ZS_OP_COUNT; op++) {  // products: lt_matmul_test
    const auto &[cases, error] = done[names[op]];
    if (cases > 0) printf("%-20s %4d cases, largest f32 error %.1e\n", names[op], cases, error);
    else if (all && op != ZS_OP_fp8_matmul && device_has(static_cast<zs_op>(op))) expect(false, std::string(names[op]) + " has no case");
  }
}

}  // namespace test

// All families, or those that are named. --small: times of small sizes, to try what takes them.
int main(int count, char **words) {
  std::vector<std::string> named(words + 1, words + count);
  const bool small = std::erase(named, "--small") > 0;
  const std::vector<std::pair<std::string, std::function<void()>>> families = {
      {"frame", test::frame},       {"elementwise", test::elementwise}, {"rows", test::rows},
      {"optimizers", test::optimizers}, {"moves", test::moves},         {"attention", test::attention},
      {"float8", test::float8},         {"matmul", test::matmul},
      {"figures", [small] { test::figures(small); }}};
  for (const std::string &name : named)
    if (std::none_of(families.begin(), families.end(), [&](const auto &family) { return family.first == name; }))
      return fprintf(stderr, "there is no family '%s'\n", name.c_str()), 1;
  if (const int status = test::device_open()) return status;
  for (const auto &[name, run] : families) {
    if (name == "figures") test::summary(named.empty());  // of the cases before it
    if (named.empty() || std::find(named.begin(), named.end(), name) != named.end()) run();
  }
  printf("%d failed\n", test::failures());
  return test::failures() != 0;
}
