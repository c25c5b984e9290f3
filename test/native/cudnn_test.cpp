// Attention through a mocked cuDNN (cudnn/fake.h) against obvious loops in float64: forward, backward, what is left to
// our own kernels, plans made once, calls cut where the workspace is large, and failures.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "../../native/backend/cuda/attention_cudnn.h"
#include "../../native/backend/cuda/context.h"
#include "../../native/ops/attention.h"
#include "cudnn/fake_execute.h"

namespace zs::cuda {

namespace {
bool no_library = false;
}

const Cudnn *cudnn(char *error) {
  if (no_library) snprintf(error, ZS_ERROR_BYTES, "there is no such library");
  return no_library ? nullptr : &fake::kFunctions;
}

}  // namespace zs::cuda

namespace {

using namespace zs::cuda;
using namespace zs::cuda::fake;

struct Shape {
  int64_t b = 1, tq = 4, tk = 4, hkv = 1, group = 1, d = 8;
  bool causal = true, packed = false;
  int64_t position = 0, gap = 0;  // gap: elements before and between rows
  int dtype = ZS_BF16;
  double p = 0;
  int64_t continues = 0, o_first = 0, o_after = 0;
  int64_t hq() const { return hkv * group; }
};

// A tensor in 16 or 32 bits, with what lies between its rows.
struct Array {
  Array(int dtype, int64_t count, std::mt19937 &random) : dtype(dtype), values(static_cast<size_t>(count) * 4 + 64) {
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < count; i++) put(i, normal(random));
  }
  char *data() { return values.data() + (16 - reinterpret_cast<uintptr_t>(values.data()) % 16) % 16; }
  double get(int64_t i) {
    if (dtype == ZS_F32) return reinterpret_cast<float *>(data())[i];
    return dtype == ZS_BF16 ? to_float(reinterpret_cast<bf16 *>(data())[i]) : to_float(reinterpret_cast<f16 *>(data())[i]);
  }
  void put(int64_t i, double value) {
    const float single = static_cast<float>(value);
    if (dtype == ZS_F32) reinterpret_cast<float *>(data())[i] = single;
    else if (dtype == ZS_BF16) reinterpret_cast<bf16 *>(data())[i] = to_bf16(single);
    else reinterpret_cast<f16 *>(data())[i] = to_f16(single);
  }
  zs_tensor tensor() { return {data(), 1, {1}, 1, dtype}; }
  int dtype;
  std::vector<char> values;
};

struct Strides {
  int64_t offset, row, batch;
};

struct Run {
  Shape s;
  Strides q, k, v;
  int64_t o_t;
  Array in_q, in_k, in_v, o, lse, grad, dq, dk, dv;
  std::vector<double> scalars;
  std::string error;
  bool done = false;
  int32_t capability = 90;

  Run(const Shape &s, std::mt19937 &random)
      : s(s), o_t(s.o_first + s.tq + s.o_after), in_q(make(random, 3)), in_k(make(random, 1)), in_v(make(random, 1)),
        o(s.dtype, s.b * o_t * s.hq() * s.d, random), lse(ZS_F32, s.b * s.hq() * o_t, random),
        grad(s.dtype, s.b * o_t * s.hq() * s.d, random), dq(make(random, 3)), dk(make(random, 1)), dv(make(random, 1)) {
    const int64_t q_width = s.hq() * s.d, kv_width = s.hkv * s.d;
    if (s.packed) {
      const int64_t row = q_width + 2 * kv_width + s.gap;
      q = {0, row, row * s.tq}, k = {q_width, row, row * s.tq}, v = {q_width + kv_width, row, row * s.tq};
    } else {
      q = {s.gap, q_width + s.gap, (q_width + s.gap) * s.tq + s.gap};
      k = {0, kv_width, kv_width * s.tk}, v = {s.gap, kv_width + s.gap, (kv_width + s.gap) * s.tk};
    }
    scalars = {double(s.b), double(s.tq), double(s.tk), double(s.hq()), double(s.hkv), double(s.d), 0.37,
               double(s.causal), double(s.position)};
    for (const Strides &x : {q, k, v}) scalars.insert(scalars.end(), {double(x.offset), double(x.row), double(x.batch)});
    scalars.insert(scalars.end(), {s.p, 1, 2, 0, 0, double(s.hq()), 0, 0, double(s.tk), double(s.continues),
                                   double(s.o_first), double(o_t)});
  }
  Array make(std::mt19937 &random, int64_t) {
    const int64_t width = (s.hq() + 2 * s.hkv) * s.d + 2 * s.gap;
    return Array(s.dtype, (s.b + 1) * std::max(s.tq, s.tk) * width + 64, random);
  }
  Array &keys() { return s.packed ? in_q : in_k; }
  Array &values() { return s.packed ? in_q : in_v; }
  Array &key_grads() { return s.packed ? dq : dk; }
  Array &value_grads() { return s.packed ? dq : dv; }

  int32_t call(bool backward, int64_t shift = 0) {
    std::vector<zs_tensor> tensors = {o.tensor(), lse.tensor(), in_q.tensor(), keys().tensor(), values().tensor()};
    if (backward)
      tensors = {dq.tensor(), key_grads().tensor(), value_grads().tensor(), grad.tensor(), in_q.tensor(),
                 keys().tensor(), values().tensor(), o.tensor(), lse.tensor()};
    tensors[2].data = static_cast<char *>(tensors[2].data) + shift;
    Context context = {};
    context.capability = capability;
    context.workspace = [](Context *, size_t) -> void * { return scratch + 256; };
    zs_call call = {tensors.data(), scalars.data(), kStream, &context, ""};
    const int32_t status = attention_cudnn(&call, backward, &done);
    error = call.error;
    return status;
  }
  int64_t at(const Strides &x, int64_t b, int64_t t, int64_t h, int64_t c) const {
    return x.offset + b * x.batch + t * x.row + h * s.d + c;
  }
  int64_t dense(int64_t b, int64_t t, int64_t h, int64_t c) const { return ((b * s.tq + t) * s.hq() + h) * s.d + c; }
  double score(int64_t b, int64_t h, int64_t t, int64_t key) {
    double sum = 0;
    for (int64_t c = 0; c < s.d; c++) sum += in_q.get(at(q, b, t, h, c)) * keys().get(at(k, b, key, h / s.group, c));
    return static_cast<float>(0.37) * sum;
  }
  int64_t seen(int64_t t) const { return s.causal ? std::min(s.tk, t + s.position + 1) : s.tk; }
};

void close(double got, double wanted, double scale, const Run &run, const char *what) {
  const double tolerance = (run.s.dtype == ZS_BF16 ? 0.02 : 0.003) * (scale + std::fabs(wanted));
  if (std::fabs(got - wanted) <= tolerance) return;
  fprintf(stderr, "%s: %g, not %g (b %ld, tq %ld, tk %ld, heads %ld/%ld, d %ld, position %ld)\n", what, got, wanted,
          run.s.b, run.s.tq, run.s.tk, run.s.hq(), run.s.hkv, run.s.d, run.s.position);
  exit(1);
}

void check_forward(Run &run) {
  const Shape &s = run.s;
  for (int64_t b = 0; b < s.b; b++)
    for (int64_t h = 0; h < s.hq(); h++)
      for (int64_t t = 0; t < s.tq; t++) {
        std::vector<double> weights;
        double total = 0;
        for (int64_t key = 0; key < run.seen(t); key++) total += weights.emplace_back(std::exp(run.score(b, h, t, key)));
        close(run.lse.get((b * s.hq() + h) * s.tq + t), std::log(total), 0.01, run, "lse");
        for (int64_t c = 0; c < s.d; c++) {
          double sum = 0;
          for (int64_t key = 0; key < run.seen(t); key++)
            sum += weights[static_cast<size_t>(key)] / total * run.values().get(run.at(run.v, b, key, h / s.group, c));
          close(run.o.get(run.dense(b, t, h, c)), sum, 0.5, run, "o");
        }
      }
}

// Gradients by the definition, of the o and lse that forward left; what lies between rows stays as it was.
void check_backward(Run &run, std::vector<Array> before) {
  const Shape &s = run.s;
  std::map<int64_t, double> wanted[3];
  for (int64_t b = 0; b < s.b; b++)
    for (int64_t h = 0; h < s.hq(); h++)
      for (int64_t t = 0; t < s.tq; t++) {
        double delta = 0;
        for (int64_t c = 0; c < s.d; c++) delta += run.grad.get(run.dense(b, t, h, c)) * run.o.get(run.dense(b, t, h, c));
        for (int64_t key = 0; key < s.tk; key++) {
          const int64_t kv = h / s.group;
          double p = 0, dp = 0;
          if (key < run.seen(t)) p = std::exp(run.score(b, h, t, key) - run.lse.get((b * s.hq() + h) * s.tq + t));
          for (int64_t c = 0; c < s.d; c++)
            dp += run.grad.get(run.dense(b, t, h, c)) * run.values().get(run.at(run.v, b, key, kv, c));
          const double ds = p * (dp - delta) * static_cast<float>(0.37);
          for (int64_t c = 0; c < s.d; c++) {
            wanted[0][run.at(run.q, b, t, h, c)] += ds * run.keys().get(run.at(run.k, b, key, kv, c));
            wanted[1][run.at(run.k, b, key, kv, c)] += ds * run.in_q.get(run.at(run.q, b, t, h, c));
            wanted[2][run.at(run.v, b, key, kv, c)] += p * run.grad.get(run.dense(b, t, h, c));
          }
        }
      }
  Array *got[3] = {&run.dq, &run.key_grads(), &run.value_grads()};
  for (int i = 0; i < 3; i++)
    for (const auto &[place, value] : wanted[i]) close(got[i]->get(place), value, 2, run, i == 0 ? "dq" : i == 1 ? "dk" : "dv");
  if (s.packed) wanted[0].merge(wanted[1]), wanted[0].merge(wanted[2]);
  for (int i = 0; i < (s.packed ? 1 : 3); i++)
    for (int64_t place = 0; place < static_cast<int64_t>(before[0].values.size()) / 4 - 16; place++)
      if (!wanted[i].count(place)) CHECK(got[i]->get(place) == before[static_cast<size_t>(i)].get(place));
}

void try_shape(const Shape &s, std::mt19937 &random) {
  Run run(s, random);
  CHECK(run.call(false) == ZS_OK && run.done);
  check_forward(run);
  std::vector<Array> before = {run.dq, run.dk, run.dv};
  CHECK(run.call(true) == ZS_OK && run.done);
  check_backward(run, before);
}

void results_and_gradients_are_those_of_plain_attention() {
  std::mt19937 random(5);
  const auto to = [&random](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  for (int i = 0; i < 400; i++) {
    Shape s;
    s.b = 1 + to(3), s.tq = 2 + to(8), s.tk = 1 + to(12), s.hkv = 1 + to(3), s.group = 1 + to(3), s.d = 8 * (1 + to(2));
    s.causal = to(4) != 0, s.position = to(2) * to(9), s.gap = 8 * to(3), s.dtype = to(2) ? ZS_BF16 : ZS_F16;
    if ((s.packed = to(2))) s.tk = s.tq;
    try_shape(s, random);
  }
}

void a_plan_is_made_once_for_each_shape() {
  std::mt19937 random(1);
  Shape s{2, 5, 5, 2, 2, 16};
  const int before = num_plans, streams = num_streams;
  const size_t descriptors = alive.size();
  try_shape(s, random);
  CHECK(num_plans == before + 2 && alive.size() > descriptors);
  const size_t kept = alive.size();
  for (int i = 0; i < 20; i++) try_shape(s, random);
  CHECK(num_plans == before + 2 && alive.size() == kept && num_streams == streams);
  s.position = 2;  // another mask
  try_shape(s, random);
  s.position = 3;  // the same mask: its place is given at the execution
  try_shape(s, random);
  CHECK(num_plans == before + 4);
}

// The whole backward wants 4 times 256 MiB, twice what a sample does; then a head's alone is too much.
void a_call_is_cut_where_the_workspace_is_large() {
  std::mt19937 random(2);
  Shape s{4, 6, 6, 4, 2, 8, true, true};
  workspace_scale = (int64_t{1} << 30) / (4 * 8 * 6 * 6);
  const int before = num_executions;
  try_shape(s, random);
  CHECK(num_executions == before + 8);
  s.tq = s.tk = 12;
  workspace_scale = (int64_t{1} << 32) / (4 * 8 * 12 * 12);
  try_shape(s, random);
  CHECK(num_executions == before + 8 + 2 * 16);
  s.tq = s.tk = 18;
  workspace_scale = (int64_t{1} << 40) / (4 * 8 * 18 * 18);
  Run run(s, random);
  CHECK(run.call(true) == ZS_OK && !run.done);
  workspace_scale = 2;
  CHECK(attention_choice().find("workspace of") != std::string::npos);
}

void what_cudnn_cannot_do_is_left_to_our_kernels() {
  std::mt19937 random(3);
  const int before = num_executions;
  const auto left = [&](Shape s, int64_t shift = 0) {
    Run run(s, random);
    for (bool backward : {false, true}) CHECK(run.call(backward, shift) == ZS_OK && !run.done);
  };
  Shape s;
  left({1, 1, 9, 1, 1, 8, true, false, 8});
  left({1, 4, 4, 1, 1, 8, true, false, -1});
  left({1, 4, 4, 1, 1, 12});
  left({1, 4, 4, 1, 1, 8, true, false, 0, 4});
  left(s, 2);
  s.dtype = ZS_F32, left(s);
  s.dtype = ZS_BF16, s.p = 0.1, left(s);
  s.p = 0, s.continues = 1, left(s);
  s.continues = 0, s.o_after = 1, left(s);
  s.o_after = 0;
  Run wide(s, random);
  wide.o = Array(ZS_F32, 64, random);
  CHECK(wide.call(false) == ZS_OK && !wide.done);
  CHECK(num_executions == before);
  wide.o = Array(ZS_BF16, 64, random), wide.capability = 103;
  CHECK(wide.call(false) == ZS_OK && wide.done && wide.call(true) == ZS_OK && !wide.done);
}

void failures_are_told() {
  std::mt19937 random(4);
  Shape s{1, 7, 7, 1, 1, 24};
  no_engine = true;
  Run run(s, random);
  const size_t descriptors = alive.size();
  CHECK(run.call(false) == ZS_OK && !run.done && alive.size() == descriptors);
  no_engine = false;
  CHECK(run.call(false) == ZS_OK && !run.done);  // asked about once
  s.tq = 8, no_order = true;
  Run restless(s, random);
  CHECK(restless.call(true) == ZS_OK && !restless.done);
  no_order = false, no_library = true;
  CHECK(restless.call(false) == ZS_OK && !restless.done);
  no_library = false, fails = true;
  CHECK(restless.call(false) == ZS_DEVICE_ERROR && restless.error.find("the mock's last word") != std::string::npos);
  fails = false;
}

// In a process of its own, since the choice is made once.
template <class Body> void with_choice(const char *value, Body body) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("ZEROSHARD_ATTENTION", value, 1);
    body();
    _exit(0);
  }
  int status = 1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

void the_environment_chooses() {
  std::mt19937 random(6);
  Run run(Shape{}, random), dropping(Shape{}, random);
  dropping.scalars[ATTENTION_P] = 0.5;
  with_choice("own", [&] { CHECK(run.call(false) == ZS_OK && !run.done && num_plans == 0); });
  with_choice("fast", [&] {
    CHECK(run.call(false) == ZS_BAD_ARGUMENT);
    CHECK(run.error == "ZEROSHARD_ATTENTION is 'fast'; it must be cudnn or own, or not be set");
  });
  with_choice("cudnn", [&] {
    CHECK(run.call(false) == ZS_OK && run.done);
    CHECK(dropping.call(false) == ZS_UNSUPPORTED && dropping.error.find("dropout") != std::string::npos);
  });
  with_choice("", [&] {
    no_handle = true;
    CHECK(run.call(false) == ZS_OK && !run.done);
    CHECK(attention_choice().find("cudnnCreate: the mock's last word") != std::string::npos);
  });
}

}  // namespace

int main() {
  the_environment_chooses();
  unsetenv("ZEROSHARD_ATTENTION");
  results_and_gradients_are_those_of_plain_attention();
  a_plan_is_made_once_for_each_shape();
  what_cudnn_cannot_do_is_left_to_our_kernels();
  a_call_is_cut_where_the_workspace_is_large();
  failures_are_told();
  puts("cudnn_test: ok");
  return 0;
}
