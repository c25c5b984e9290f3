// Forward: softmax(scale q k', masked) v, and the log of the sums. Backward (Dao, FlashAttention-2, by the paper):
// p = exp(scale q k' - lse), dv = p' do, ds = p (do v' - delta) scale, dq = ds k, dk = ds' q, delta = sums of do o.
// The order and the shapes of operations are those in which cuDNN knows attention. dq is a product's result, not a sum
// by atomics, which is how NVIDIA's frontend asks for the same bits at each run.
#include "attention_graph.h"

#include <algorithm>

#include "../backend.h"

namespace zs::cuda {

namespace {

constexpr int64_t kMostConfigurations = 16;

struct Dims {
  int64_t at[4];
};

struct Tensor {
  DnnDescriptor descriptor;
  Dims dims, strides;
};

// Makes descriptors; after the first failure nothing more is done and `failed` says what it was.
class Graph {
 public:
  Graph(const Cudnn &api, AttentionPlan &plan, int io_type) : api_(api), plan_(plan), io_(io_type) {}

  bool ok() const { return plan_.reason.empty(); }
  int io() const { return io_; }
  std::vector<DnnDescriptor> operations;

  DnnDescriptor create(int type) {
    DnnDescriptor made = nullptr;
    if (ok()) keep(api_.descriptor_create(type, &made), "cudnnBackendCreateDescriptor", type);
    if (made) plan_.owned.push_back(made);
    return made;
  }
  void set(DnnDescriptor to, int attribute, int type, int64_t count, const void *values) {
    if (ok()) keep(api_.set(to, attribute, type, count, values), "cudnnBackendSetAttribute", attribute);
  }
  void set(DnnDescriptor to, int attribute, DnnDescriptor value) {
    set(to, attribute, DNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
  }
  void set_type(DnnDescriptor to, int attribute, int32_t data_type) {
    set(to, attribute, DNN_TYPE_DATA_TYPE, 1, &data_type);
  }
  void finalize(DnnDescriptor descriptor, const char *what) {
    if (ok()) keep(api_.finalize(descriptor), what, -1);
  }

  Tensor tensor(int64_t uid, int type, const Dims &dims, const Dims &strides, bool inside = false, bool value = false) {
    const int64_t align = value ? 4 : 16;
    const bool yes = true;
    DnnDescriptor made = create(DNN_TENSOR);
    set_type(made, DNN_ATTR_TENSOR_DATA_TYPE, type);
    set(made, DNN_ATTR_TENSOR_DIMENSIONS, DNN_TYPE_INT64, 4, dims.at);
    set(made, DNN_ATTR_TENSOR_STRIDES, DNN_TYPE_INT64, 4, strides.at);
    set(made, DNN_ATTR_TENSOR_UNIQUE_ID, DNN_TYPE_INT64, 1, &uid);
    set(made, DNN_ATTR_TENSOR_BYTE_ALIGNMENT, DNN_TYPE_INT64, 1, &align);
    if (inside) set(made, DNN_ATTR_TENSOR_IS_VIRTUAL, DNN_TYPE_BOOLEAN, 1, &yes);
    if (value) set(made, DNN_ATTR_TENSOR_IS_BY_VALUE, DNN_TYPE_BOOLEAN, 1, &yes);
    finalize(made, "a tensor");
    return {made, dims, strides};
  }
  Tensor inside(int type, const Dims &dims) {
    const int64_t *n = dims.at;
    return tensor(next_++, type, dims, {{n[1] * n[2] * n[3], n[2] * n[3], n[3], 1}}, true);
  }
  Tensor scalar(int64_t uid, int type) { return tensor(uid, type, {{1, 1, 1, 1}}, {{1, 1, 1, 1}}, false, true); }

  // y = mode(x, b, where t); b, t may be absent.
  void pointwise(int32_t mode, const Tensor &x, const Tensor *b, const Tensor &y, int math = DNN_FLOAT,
                 const Tensor *t = nullptr, int64_t axis = -1) {
    DnnDescriptor how = create(DNN_POINTWISE), operation = create(DNN_OPERATION_POINTWISE);
    set(how, DNN_ATTR_POINTWISE_MODE, DNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(how, DNN_ATTR_POINTWISE_MATH_PREC, math);
    if (axis >= 0) set(how, DNN_ATTR_POINTWISE_AXIS, DNN_TYPE_INT64, 1, &axis);
    finalize(how, "a pointwise mode");
    set(operation, DNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set(operation, DNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor);
    if (b) set(operation, DNN_ATTR_OPERATION_POINTWISE_BDESC, b->descriptor);
    if (t) set(operation, DNN_ATTR_OPERATION_POINTWISE_TDESC, t->descriptor);
    set(operation, DNN_ATTR_OPERATION_POINTWISE_YDESC, y.descriptor);
    add(operation, "a pointwise operation");
  }
  Tensor pointwise(int32_t mode, const Tensor &x, const Tensor *b = nullptr) {
    const Tensor y = inside(DNN_FLOAT, x.dims);
    return pointwise(mode, x, b, y), y;
  }
  void matmul(const Tensor &a, const Tensor &b, const Tensor &c) {
    DnnDescriptor how = create(DNN_MATMUL), operation = create(DNN_OPERATION_MATMUL);
    set_type(how, DNN_ATTR_MATMUL_COMP_TYPE, DNN_FLOAT);
    finalize(how, "a product's type");
    set(operation, DNN_ATTR_OPERATION_MATMUL_ADESC, a.descriptor);
    set(operation, DNN_ATTR_OPERATION_MATMUL_BDESC, b.descriptor);
    set(operation, DNN_ATTR_OPERATION_MATMUL_CDESC, c.descriptor);
    set(operation, DNN_ATTR_OPERATION_MATMUL_DESC, how);
    add(operation, "a product");
  }
  void reduce(int32_t mode, const Tensor &x, const Tensor &y) {
    DnnDescriptor how = create(DNN_REDUCTION), operation = create(DNN_OPERATION_REDUCTION);
    set(how, DNN_ATTR_REDUCTION_OPERATOR, DNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    set_type(how, DNN_ATTR_REDUCTION_COMP_TYPE, DNN_FLOAT);
    finalize(how, "a reduction's type");
    set(operation, DNN_ATTR_OPERATION_REDUCTION_XDESC, x.descriptor);
    set(operation, DNN_ATTR_OPERATION_REDUCTION_YDESC, y.descriptor);
    set(operation, DNN_ATTR_OPERATION_REDUCTION_DESC, how);
    add(operation, "a reduction");
  }
  // x with its last two dimensions exchanged: the same memory.
  Tensor transpose(const Tensor &x, int type) {
    const int64_t *n = x.dims.at, *s = x.strides.at;
    const Tensor y = tensor(next_++, type, {{n[0], n[1], n[3], n[2]}}, {{s[0], s[1], s[3], s[2]}}, true);
    DnnDescriptor operation = create(DNN_OPERATION_RESHAPE);
    set(operation, DNN_ATTR_OPERATION_RESHAPE_XDESC, x.descriptor);
    set(operation, DNN_ATTR_OPERATION_RESHAPE_YDESC, y.descriptor);
    add(operation, "a transposition");
    return y;
  }

  void keep(int status, const char *what, int which) {
    if (status == 0 || !ok()) return;
    char said[256] = "";
    api_.last_error(said, sizeof said);
    plan_.reason = what;
    if (which >= 0) plan_.reason.append(" ").append(std::to_string(which));
    plan_.reason.append(": ").append(said[0] ? said : api_.error_string(status));
  }

 private:
  void add(DnnDescriptor operation, const char *what) {
    finalize(operation, what);
    operations.push_back(operation);
  }

  const Cudnn &api_;
  AttentionPlan &plan_;
  int io_;
  int64_t next_ = kFirstInside;
};

// The tensors outside. Dimensions are (batch, head, row, column).
struct Outside {
  Outside(Graph &g, const AttentionShape &s) : s(s), g(g) {}
  Tensor rows(int64_t uid, int64_t heads, int64_t t, int64_t row, int64_t batch) {
    return g.tensor(uid, g.io(), {{s.b, heads, t, s.d}}, {{batch, s.d, row, 1}});
  }
  Tensor columns(int64_t uid, int64_t row, int64_t batch) {
    return g.tensor(uid, g.io(), {{s.b, s.hkv, s.d, s.tk}}, {{batch, s.d, 1, row}});
  }
  Tensor q(int64_t uid) { return rows(uid, s.hq, s.tq, s.q_row, s.q_batch); }
  Tensor dense(int64_t uid) { return rows(uid, s.hq, s.tq, s.o_row, s.o_row * s.tq); }
  Tensor per_row(int64_t uid) {
    return g.tensor(uid, DNN_FLOAT, {{s.b, s.hq, s.tq, 1}}, {{s.hq * s.tq, s.tq, 1, 1}});
  }
  const AttentionShape &s;
  Graph &g;
};

// x, and -infinity where a query does not see the key.
Tensor mask(Graph &g, const AttentionShape &s, const Tensor &x) {
  if (!s.causal) return x;
  Tensor row = g.inside(DNN_INT32, x.dims);
  const Tensor column = g.inside(DNN_INT32, x.dims), sees = g.inside(DNN_BOOLEAN, x.dims);
  const Tensor y = g.inside(DNN_FLOAT, x.dims), negative = g.scalar(UID_NEGATIVE, DNN_FLOAT);
  g.pointwise(DNN_POINTWISE_GEN_INDEX, x, nullptr, row, DNN_FLOAT, nullptr, 2);
  g.pointwise(DNN_POINTWISE_GEN_INDEX, x, nullptr, column, DNN_FLOAT, nullptr, 3);
  if (s.shifted) {
    const Tensor position = g.scalar(UID_POSITION, DNN_INT32), moved = g.inside(DNN_INT32, x.dims);
    g.pointwise(DNN_POINTWISE_ADD, row, &position, moved, DNN_INT32);
    row = moved;
  }
  g.pointwise(DNN_POINTWISE_CMP_GE, row, &column, sees, DNN_BOOLEAN);
  g.pointwise(DNN_POINTWISE_BINARY_SELECT, x, &negative, y, DNN_FLOAT, &sees);
  return y;
}

void forward(Graph &g, const AttentionShape &s) {
  Outside x(g, s);
  const Dims square = {{s.b, s.hq, s.tq, s.tk}}, line = {{s.b, s.hq, s.tq, 1}};
  const Tensor q = x.q(UID_Q), k = x.columns(UID_K, s.k_row, s.k_batch);
  const Tensor v = x.rows(UID_V, s.hkv, s.tk, s.v_row, s.v_batch), scale = g.scalar(UID_SCALE, DNN_FLOAT);
  const Tensor scores = g.inside(DNN_FLOAT, square);
  g.matmul(q, k, scores);
  const Tensor seen = mask(g, s, g.pointwise(DNN_POINTWISE_MUL, scores, &scale));
  const Tensor most = g.inside(DNN_FLOAT, line), sum = g.inside(DNN_FLOAT, line);
  g.reduce(DNN_REDUCE_TENSOR_MAX, seen, most);
  const Tensor power = g.pointwise(DNN_POINTWISE_EXP, g.pointwise(DNN_POINTWISE_SUB, seen, &most));
  g.reduce(DNN_REDUCE_TENSOR_ADD, power, sum);
  const Tensor log = g.pointwise(DNN_POINTWISE_LOG, sum), p = g.inside(g.io(), square);
  g.pointwise(DNN_POINTWISE_ADD, most, &log, x.per_row(UID_LSE));
  g.pointwise(DNN_POINTWISE_DIV, power, &sum, p);
  g.matmul(p, v, x.dense(UID_O));
}

// x' y summed over the heads that share keys: into `to`, of fewer heads perhaps.
void fold(Graph &g, const AttentionShape &s, const Tensor &x, const Tensor &y, const Tensor &to) {
  const Tensor turned = g.transpose(x, g.io());
  if (s.hq == s.hkv) return g.matmul(turned, y, to);
  const Tensor whole = g.inside(g.io(), {{s.b, s.hq, s.tk, s.d}});
  g.matmul(turned, y, whole);
  g.reduce(DNN_REDUCE_TENSOR_ADD, whole, to);
}

void backward(Graph &g, const AttentionShape &s) {
  Outside x(g, s);
  const Dims square = {{s.b, s.hq, s.tq, s.tk}};
  const Tensor q = x.q(UID_Q), k = x.columns(UID_K, s.k_row, s.k_batch), v = x.columns(UID_V, s.v_row, s.v_batch);
  const Tensor o = x.dense(UID_O), grad = x.dense(UID_DO), lse = x.per_row(UID_LSE), delta = x.per_row(UID_DELTA);
  const Tensor scale = g.scalar(UID_SCALE, DNN_FLOAT), one = g.scalar(UID_ONE, DNN_FLOAT);
  const Tensor sums = g.inside(DNN_FLOAT, {{s.b, s.hq, s.tq, 1}});
  g.reduce(DNN_REDUCE_TENSOR_ADD, g.pointwise(DNN_POINTWISE_MUL, grad, &o), sums);
  g.pointwise(DNN_POINTWISE_MUL, sums, &one, delta);
  const Tensor scores = g.inside(DNN_FLOAT, square), dp = g.inside(DNN_FLOAT, square);
  g.matmul(q, k, scores);
  const Tensor scaled = g.pointwise(DNN_POINTWISE_MUL, scores, &scale);
  const Tensor p = g.pointwise(DNN_POINTWISE_EXP, mask(g, s, g.pointwise(DNN_POINTWISE_SUB, scaled, &lse)));
  fold(g, s, p, grad, x.rows(UID_DV, s.hkv, s.tk, s.v_row, s.v_batch));
  g.matmul(grad, v, dp);
  const Tensor slope = g.pointwise(DNN_POINTWISE_MUL, g.pointwise(DNN_POINTWISE_SUB, dp, &delta), &p);
  const Tensor ds = g.pointwise(DNN_POINTWISE_MUL, slope, &scale);
  fold(g, s, ds, q, x.rows(UID_DK, s.hkv, s.tk, s.k_row, s.k_batch));
  g.matmul(ds, g.transpose(k, g.io()), x.q(UID_DQ));
}

// Whether an engine may give other bits at the next run.
bool restless(const Cudnn &api, Graph &g, DnnDescriptor configuration) {
  DnnDescriptor engine = g.create(DNN_ENGINE);
  int64_t count = 0;
  int32_t notes[DNN_NUMERICAL_NOTE_TYPE_COUNT] = {};
  if (!g.ok()) return true;
  int status = api.get(configuration, DNN_ATTR_ENGINECFG_ENGINE, DNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine);
  if (status == 0)
    status = api.get(engine, DNN_ATTR_ENGINE_NUMERICAL_NOTE, DNN_TYPE_NUMERICAL_NOTE, DNN_NUMERICAL_NOTE_TYPE_COUNT,
                     &count, notes);
  if (status != 0) return true;
  return std::find(notes, notes + count, DNN_NUMERICAL_NOTE_NONDETERMINISTIC) != notes + count;
}

// What the heuristics propose, best first.
std::vector<DnnDescriptor> proposals(const Cudnn &api, Graph &g, DnnDescriptor graph, DnnDescriptor device) {
  const int32_t mode = DNN_HEUR_MODE_A;
  DnnDescriptor heuristics = g.create(DNN_ENGINEHEUR);
  g.set(heuristics, DNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  g.set(heuristics, DNN_ATTR_ENGINEHEUR_MODE, DNN_TYPE_HEUR_MODE, 1, &mode);
  if (device) g.set(heuristics, DNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
  g.finalize(heuristics, "heuristics");
  std::vector<DnnDescriptor> found;
  for (int64_t i = 0; i < kMostConfigurations && g.ok(); i++) found.push_back(g.create(DNN_ENGINECFG));
  int64_t count = 0;
  if (g.ok())
    g.keep(api.get(heuristics, DNN_ATTR_ENGINEHEUR_RESULTS, DNN_TYPE_BACKEND_DESCRIPTOR, kMostConfigurations, &count,
                   found.data()), "cudnnBackendGetAttribute", DNN_ATTR_ENGINEHEUR_RESULTS);
  found.resize(g.ok() ? static_cast<size_t>(std::min(count, kMostConfigurations)) : 0);
  return found;
}

// Makes `into.plan` of the first proposal that works; else `why` says what was wrong with the last.
void choose(const Cudnn &api, Graph &g, DnnHandle handle, DnnDescriptor device, AttentionPlan &into,
            const std::vector<DnnDescriptor> &from) {
  std::string why = "cuDNN knows no engine for it";
  for (DnnDescriptor configuration : from) {
    if (restless(api, g, configuration)) {
      why = "its engines promise no order of summation";
      continue;
    }
    DnnDescriptor plan = g.create(DNN_EXECUTION_PLAN);
    if (handle) g.set(plan, DNN_ATTR_EXECUTION_PLAN_HANDLE, DNN_TYPE_HANDLE, 1, &handle);
    if (device) g.set(plan, DNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
    g.set(plan, DNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    g.finalize(plan, "a plan");
    int64_t count = 0, bytes = 0;
    if (g.ok())
      g.keep(api.get(plan, DNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, DNN_TYPE_INT64, 1, &count, &bytes),
             "cudnnBackendGetAttribute", DNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
    if (g.ok()) {
      into.plan = plan, into.workspace = bytes;
      return;
    }
    why = into.reason;
    into.reason.clear();
  }
  into.reason = why;
}

}  // namespace

AttentionPlan plan_attention(const Cudnn &api, DnnHandle handle, DnnDescriptor device, const AttentionShape &shape) {
  AttentionPlan made;
  Graph g(api, made, shape.dtype == ZS_BF16 ? DNN_BFLOAT16 : DNN_HALF);
  if (shape.backward) backward(g, shape);
  else forward(g, shape);
  DnnDescriptor graph = g.create(DNN_OPERATIONGRAPH);
  if (handle) g.set(graph, DNN_ATTR_OPERATIONGRAPH_HANDLE, DNN_TYPE_HANDLE, 1, &handle);
  g.set(graph, DNN_ATTR_OPERATIONGRAPH_OPS, DNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(g.operations.size()),
        g.operations.data());
  g.finalize(graph, "the graph of operations");
  const std::vector<DnnDescriptor> found = proposals(api, g, graph, device);
  if (g.ok()) choose(api, g, handle, device, made, found);
  if (!made.plan) forget(api, made);
  return made;
}

void forget(const Cudnn &api, AttentionPlan &plan) {
  for (DnnDescriptor descriptor : plan.owned) api.descriptor_destroy(descriptor);
  plan.owned.clear();
  plan.plan = nullptr;
}

}  // namespace zs::cuda
