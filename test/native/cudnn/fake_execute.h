// Execution of a graph of fake.h, operation by operation, in float64; tensors inside are rounded to their type.
#pragma once
#include "fake.h"

namespace zs::cuda::fake {

using Index = std::vector<int64_t>;

struct View {
  int type;
  Index dims, strides;
  void *outside = nullptr;
  std::vector<double> *within = nullptr;

  int64_t at(const Index &i) const {
    int64_t sum = 0;
    for (size_t d = 0; d < dims.size(); d++) {
      CHECK(i[d] >= 0 && i[d] < dims[d]);
      sum += i[d] * strides[d];
    }
    return sum;
  }
  double get(const Index &i) const {
    const int64_t n = at(i);
    if (within) return within->at(static_cast<size_t>(n));
    switch (type) {
      case DNN_FLOAT: return static_cast<float *>(outside)[n];
      case DNN_INT32: return static_cast<int32_t *>(outside)[n];
      case DNN_BFLOAT16: return to_float(static_cast<bf16 *>(outside)[n]);
      case DNN_HALF: return to_float(static_cast<f16 *>(outside)[n]);
      default: CHECK(!"a type that no tensor outside has"); return 0;
    }
  }
  void put(const Index &i, double value) const {
    const int64_t n = at(i);
    const float single = static_cast<float>(value);
    if (within)
      within->at(static_cast<size_t>(n)) = type == DNN_BFLOAT16 ? to_float(to_bf16(single)) : type == DNN_HALF ? to_float(to_f16(single)) : value;
    else if (type == DNN_FLOAT) static_cast<float *>(outside)[n] = single;
    else if (type == DNN_BFLOAT16) static_cast<bf16 *>(outside)[n] = to_bf16(single);
    else if (type == DNN_HALF) static_cast<f16 *>(outside)[n] = to_f16(single);
    else CHECK(!"a type that no result outside has");
  }
};

// Every index of `dims`.
template <class Body> void each(const Index &dims, Body body) {
  for (int64_t n : dims)
    if (n == 0) return;
  Index i(dims.size(), 0);
  for (;;) {
    body(i);
    size_t d = dims.size();
    while (d > 0 && ++i[d - 1] == dims[d - 1]) i[--d] = 0;
    if (d == 0) return;
  }
}

// Where `small`, repeated to `large`, has the element i. In groups: heads that share keys.
inline Index folded(const Index &i, const Index &large, const Index &small) {
  Index at(i.size());
  for (size_t d = 0; d < i.size(); d++) {
    CHECK(large[d] % small[d] == 0);
    at[d] = i[d] / (large[d] / small[d]);
  }
  return at;
}

struct Execution {
  std::map<int64_t, void *> bound;
  std::map<const Descriptor *, std::vector<double>> within;
  std::set<int64_t> used;

  View view(const Descriptor *t) {
    View made{t->one<int32_t>(DNN_ATTR_TENSOR_DATA_TYPE), fake::dims(t), t->list<int64_t>(DNN_ATTR_TENSOR_STRIDES)};
    CHECK(made.dims.size() == 4 && made.strides.size() == 4);
    const int64_t uid = t->one<int64_t>(DNN_ATTR_TENSOR_UNIQUE_ID), align = t->one<int64_t>(DNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    int64_t room = 1;
    for (size_t d = 0; d < 4; d++) room += (made.dims[d] - 1) * made.strides[d];
    if (inside(t)) {
      std::vector<double> &values = within[t];
      if (values.empty()) values.assign(static_cast<size_t>(room), NAN);
      made.within = &values;
    } else {
      CHECK(bound.count(uid) == 1);
      used.insert(uid);
      made.outside = bound[uid];
      CHECK(made.outside && reinterpret_cast<uintptr_t>(made.outside) % static_cast<uintptr_t>(align) == 0);
    }
    return made;
  }

  static double apply(int mode, double x, double b, double t) {
    switch (mode) {
      case DNN_POINTWISE_ADD: return x + b;
      case DNN_POINTWISE_SUB: return x - b;
      case DNN_POINTWISE_MUL: return x * b;
      case DNN_POINTWISE_DIV: return x / b;
      case DNN_POINTWISE_EXP: return std::exp(x);
      case DNN_POINTWISE_LOG: return std::log(x);
      case DNN_POINTWISE_CMP_GE: return x >= b;
      case DNN_POINTWISE_BINARY_SELECT: return t != 0 ? x : b;
      default: CHECK(!"a pointwise mode that the graph should not have"); return 0;
    }
  }

  void pointwise(const Descriptor *op) {
    const Descriptor *how = op->part(750);
    const int mode = how->one<int32_t>(0);
    const bool unary = mode == DNN_POINTWISE_EXP || mode == DNN_POINTWISE_LOG || mode == DNN_POINTWISE_GEN_INDEX;
    CHECK(op->has(752) == !unary && op->has(758) == (mode == DNN_POINTWISE_BINARY_SELECT));
    CHECK(how->has(9) == (mode == DNN_POINTWISE_GEN_INDEX));
    const View x = view(op->part(751)), y = view(op->part(753)), b = unary ? x : view(op->part(752));
    const View t = op->has(758) ? view(op->part(758)) : x;
    CHECK(y.type != DNN_BOOLEAN || how->one<int32_t>(1) == DNN_BOOLEAN);
    each(y.dims, [&](const Index &i) {
      if (mode == DNN_POINTWISE_GEN_INDEX) return y.put(i, static_cast<double>(i[static_cast<size_t>(how->one<int64_t>(9))]));
      const auto read = [&](const View &from) { return from.get(folded(i, y.dims, from.dims)); };
      y.put(i, apply(mode, read(x), read(b), read(t)));
    });
  }

  void matmul(const Descriptor *op) {
    CHECK(op->part(1523)->one<int32_t>(1500) == DNN_FLOAT);
    const View a = view(op->part(1520)), b = view(op->part(1521)), c = view(op->part(1522));
    CHECK(a.dims[3] == b.dims[2] && c.dims[2] == a.dims[2] && c.dims[3] == b.dims[3]);
    each(c.dims, [&](const Index &i) {
      double sum = 0;
      for (int64_t k = 0; k < a.dims[3]; k++) {
        const auto of = [&](const View &m, int64_t row, int64_t column) {
          return m.get({i[0], i[1] / (c.dims[1] / m.dims[1]), row, column});
        };
        sum += of(a, i[2], k) * of(b, k, i[3]);
      }
      c.put(i, sum);
    });
  }

  void reduce(const Descriptor *op) {
    const View x = view(op->part(1610)), y = view(op->part(1611));
    const int mode = op->part(1612)->one<int32_t>(1600);
    std::map<Index, double> found;
    each(x.dims, [&](const Index &i) {
      const auto [at, fresh] = found.emplace(folded(i, x.dims, y.dims), x.get(i));
      if (!fresh) at->second = mode == DNN_REDUCE_TENSOR_ADD ? at->second + x.get(i) : std::max(at->second, x.get(i));
    });
    for (const auto &[i, value] : found) y.put(i, value);
  }

  void reshape(const Descriptor *op) {
    View x = view(op->part(2200));
    const View y = view(op->part(2201));
    std::swap(x.dims[2], x.dims[3]), std::swap(x.strides[2], x.strides[3]);
    CHECK(x.dims == y.dims && x.strides == y.strides);  // the same memory, read otherwise
    each(y.dims, [&](const Index &i) { y.put(i, x.get(i)); });
  }

  void run(const Descriptor *graph) {
    for (void *operation : graph->list<void *>(801)) {
      const Descriptor *op = live(operation);
      if (op->type == DNN_OPERATION_POINTWISE) pointwise(op);
      else if (op->type == DNN_OPERATION_MATMUL) matmul(op);
      else if (op->type == DNN_OPERATION_REDUCTION) reduce(op);
      else reshape(op);
    }
    CHECK(used.size() == bound.size());  // nothing is bound that the graph does not name
  }
};

inline int execute(DnnHandle handle, DnnDescriptor plan, DnnDescriptor pack) {
  CHECK(static_cast<void *>(handle) == kHandle && stream_set == kStream);
  const Descriptor *what = live(plan), *with = live(pack);
  CHECK(what->final && with->final && what->type == DNN_EXECUTION_PLAN && with->type == DNN_VARIANT_PACK);
  num_executions++;
  if (fails) return 5000;
  Execution execution;
  const std::vector<int64_t> uids = with->list<int64_t>(1000);
  const std::vector<void *> pointers = with->list<void *>(1001);
  for (size_t i = 0; i < uids.size(); i++) CHECK(execution.bound.emplace(uids[i], pointers[i]).second);
  const Descriptor *graph = what->part(401)->part(-1);
  const int64_t bytes = workspace_scale * num_weights(graph);
  char *workspace = static_cast<char *>(with->one<void *>(1003));
  CHECK(bytes == 0 || (workspace >= scratch && reinterpret_cast<uintptr_t>(workspace) % 16 == 0));
  if (bytes > 0 && bytes < 4096) memset(workspace, 0x7f, static_cast<size_t>(bytes));  // a plan may write all of it
  execution.run(graph);
  return 0;
}

inline const Cudnn kFunctions = {
    [](int) { return "a mocked status"; },
    [](char *message, size_t bytes) { snprintf(message, bytes, "the mock's last word"); },
    [](DnnHandle *handle) { return *handle = static_cast<DnnHandle>(no_handle ? nullptr : kHandle), no_handle ? 1001 : 0; },
    [](DnnHandle, void *stream) { return num_streams++, stream_set = stream, 0; },
    create, destroy, finalize, set, get, execute};

}  // namespace zs::cuda::fake
