// Plans are made once for each shape and kept. Deterministic backward of cuDNN may want as much workspace as the
// weights have elements (on sm_80 and sm_90): where that is more than kMostWorkspace, a call is cut into samples, or
// into heads of one sample. Includes no CUDA header: test/native/cudnn_test.cpp runs it on the host.
#include "attention_cudnn.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>

#include "../../ops/attention.h"
#include "../call.h"
#include "attention_graph.h"
#include "context.h"

namespace zs::cuda {

namespace {

constexpr int64_t kMostWorkspace = int64_t{256} << 20;

// Where a call of either direction has its tensors; those of the operands' type lie from 0 to `last`.
struct Places {
  int q, k, v, o, lse, last;
};
constexpr Places kForward = {ATTENTION_Q, ATTENTION_K, ATTENTION_V, ATTENTION_O, ATTENTION_LSE, ATTENTION_V};
constexpr Places kBackward = {ATTENTION_BACKWARD_Q, ATTENTION_BACKWARD_K,   ATTENTION_BACKWARD_V,
                              ATTENTION_BACKWARD_O, ATTENTION_BACKWARD_LSE, ATTENTION_BACKWARD_O};

const Places &places(bool backward) { return backward ? kBackward : kForward; }

const char *wanted() {
  const char *value = getenv("ZEROSHARD_ATTENTION");
  return value ? value : "";
}

struct Part {
  AttentionShape shape;
  AttentionPlan plan;
};

// The device's handle and plans. The lock is held while a plan is made and while one is executed: the handle has one
// stream at a time.
struct Plans {
  std::mutex lock;
  DnnHandle handle = nullptr;
  void *stream = nullptr;
  std::string reason;   // why there is no handle
  std::string refused;  // the first shape that cuDNN had no plan for
  std::map<AttentionShape, Part> known;
};

Plans &plans() {
  static Plans &made = *new Plans;  // never destroyed: other threads may be at work when the process ends
  return made;
}

std::string said(const Cudnn &api, const char *what, int status) {
  char detail[160] = "";
  api.last_error(detail, sizeof detail);
  return std::string("cuDNN: ") + what + ": " + (detail[0] ? detail : api.error_string(status));
}

// Why cuDNN's attention is not this call's; nullptr: it may be.
const char *unsuited(const zs_call *call, bool backward) {
  const auto n = [call](int index) { return integer(call, index); };
  const Places &place = places(backward);
  const int dtype = call->tensors[place.q].dtype;
  if (dtype != ZS_BF16 && dtype != ZS_F16) return "its elements are neither bf16 nor f16";
  uintptr_t bits = 0;
  for (int i = 0; i <= place.last; i++) {
    if (i == place.lse) continue;
    if (call->tensors[i].dtype != dtype) return "its results are wider than its operands";
    bits |= reinterpret_cast<uintptr_t>(call->tensors[i].data);
  }
  int64_t steps = n(ATTENTION_D);
  for (int i = ATTENTION_Q_OFFSET; i <= ATTENTION_V_BATCH; i++) steps |= n(i);
  if (n(ATTENTION_CONTINUE) != 0) return "it joins keys to others";
  if (call->scalars[ATTENTION_P] > 0) return "its dropout is drawn by our generator";
  if (n(ATTENTION_O_FIRST) != 0 || n(ATTENTION_O_T) != n(ATTENTION_TQ)) return "its queries are a part of a tensor's";
  if (n(ATTENTION_CAUSAL) != 0 && n(ATTENTION_Q_POSITION) < 0) return "some of its queries see no key";
  if (n(ATTENTION_TQ) <= 1) return "it has one query, and a plan for each number of keys costs more than it saves";
  if (bits % 16 != 0 || steps % 8 != 0) return "its rows do not begin at multiples of 16 bytes";
  return nullptr;
}

AttentionShape shape_of(const zs_call *call, bool backward) {
  const auto n = [call](int index) { return integer(call, index); };
  AttentionShape s = {};
  s.backward = backward;
  s.dtype = call->tensors[places(backward).q].dtype;
  s.b = n(ATTENTION_B), s.tq = n(ATTENTION_TQ), s.tk = n(ATTENTION_TK);
  s.hq = n(ATTENTION_HQ), s.hkv = n(ATTENTION_HKV), s.d = n(ATTENTION_D);
  s.causal = n(ATTENTION_CAUSAL) != 0 && n(ATTENTION_Q_POSITION) < s.tk - 1;
  s.shifted = s.causal && n(ATTENTION_Q_POSITION) != 0;
  s.q_row = n(ATTENTION_Q_ROW), s.k_row = n(ATTENTION_K_ROW), s.v_row = n(ATTENTION_V_ROW);
  s.q_batch = n(ATTENTION_Q_BATCH), s.k_batch = n(ATTENTION_K_BATCH), s.v_batch = n(ATTENTION_V_BATCH);
  s.o_row = s.hq * s.d;
  return s;
}

int64_t least_divisor(int64_t of, int64_t from) {
  while (of % from != 0) from++;
  return from;
}

// The largest equal parts whose workspace is not above the limit, as it is for the whole `bytes`.
bool shrink(AttentionShape &s, int64_t bytes) {
  const int64_t parts = (bytes + kMostWorkspace - 1) / kMostWorkspace;
  if (s.b > 1) {
    s.b /= least_divisor(s.b, std::min(parts, s.b));
    return true;
  }
  if (s.hkv == 1) return false;
  const int64_t cut = least_divisor(s.hkv, std::min(parts, s.hkv));
  s.hq /= cut, s.hkv /= cut;
  return true;
}

Part make_part(const Cudnn &api, DnnHandle handle, AttentionShape shape) {
  for (;;) {
    Part part = {shape, plan_attention(api, handle, nullptr, shape)};
    if (!part.plan.plan || part.plan.workspace <= kMostWorkspace) return part;
    const int64_t bytes = part.plan.workspace;
    forget(api, part.plan);
    if (shrink(shape, bytes)) continue;
    part.plan.reason = "it wants a workspace of " + std::to_string(bytes >> 20) + " MiB";
    return part;
  }
}

// Under the lock. A reason in the part's plan: there is none for this shape.
const Part &part_of(const Cudnn &api, Plans &all, const AttentionShape &shape) {
  const auto found = all.known.find(shape);
  if (found != all.known.end()) return found->second;
  Part part = {shape, {}};
  if (!all.handle && all.reason.empty())
    if (const int status = api.create(&all.handle)) all.reason = said(api, "cudnnCreate", status), all.handle = nullptr;
  if (all.handle) part = make_part(api, all.handle, shape);
  else part.plan.reason = all.reason;
  if (!part.plan.plan && all.refused.empty()) {
    char text[160];
    snprintf(text, sizeof text, "%s of %lld x %lld by %lld, heads %lld/%lld of %lld: ",
             shape.backward ? "backward" : "forward", static_cast<long long>(shape.b),
             static_cast<long long>(shape.tq), static_cast<long long>(shape.tk), static_cast<long long>(shape.hq),
             static_cast<long long>(shape.hkv), static_cast<long long>(shape.d));
    all.refused = text + part.plan.reason;
  }
  return all.known.emplace(shape, std::move(part)).first->second;
}

// The call's numbers that a plan reads from host memory when it is executed.
struct Values {
  float scale, negative = -INFINITY, one = 1;
  int32_t position;
};

struct Binding {
  int64_t uids[kFirstInside];
  void *pointers[kFirstInside];
  int64_t count = 0;
  void add(int64_t uid, const void *pointer) {
    uids[count] = uid;
    pointers[count++] = const_cast<void *>(pointer);
  }
};

// Where sample and head (of keys) begin in each tensor; `values` outlives the binding.
Binding bind_part(const zs_call *call, const AttentionShape &s, int64_t sample, int64_t head, float *delta,
                  Values &values) {
  const Places &place = places(s.backward);
  const int64_t group = integer(call, ATTENTION_HQ) / integer(call, ATTENTION_HKV), query_head = head * group;
  Binding made;
  const auto at = [&](int64_t uid, int tensor, int64_t offset, int64_t batch, int64_t first) {
    made.add(uid, data<char>(call, tensor) + 2 * (offset + sample * batch + first * s.d));
  };
  const auto q = [&](int64_t uid, int i) { at(uid, i, integer(call, ATTENTION_Q_OFFSET), s.q_batch, query_head); };
  const auto k = [&](int64_t uid, int i) { at(uid, i, integer(call, ATTENTION_K_OFFSET), s.k_batch, head); };
  const auto v = [&](int64_t uid, int i) { at(uid, i, integer(call, ATTENTION_V_OFFSET), s.v_batch, head); };
  const auto o = [&](int64_t uid, int i) { at(uid, i, 0, s.o_row * s.tq, query_head); };
  q(UID_Q, place.q), k(UID_K, place.k), v(UID_V, place.v), o(UID_O, place.o);
  made.add(UID_LSE, data<float>(call, place.lse) + (sample * integer(call, ATTENTION_HQ) + query_head) * s.tq);
  made.add(UID_SCALE, &values.scale);
  if (s.causal) made.add(UID_NEGATIVE, &values.negative);
  if (s.shifted) made.add(UID_POSITION, &values.position);
  if (!s.backward) return made;
  o(UID_DO, ATTENTION_BACKWARD_DO);
  q(UID_DQ, ATTENTION_DQ), k(UID_DK, ATTENTION_DK), v(UID_DV, ATTENTION_DV);
  made.add(UID_DELTA, delta), made.add(UID_ONE, &values.one);
  return made;
}

int execute(const Cudnn &api, DnnHandle handle, DnnDescriptor plan, const Binding &bound, void *workspace) {
  DnnDescriptor pack = nullptr;
  int status = api.descriptor_create(DNN_VARIANT_PACK, &pack);
  const auto set = [&](int attribute, int type, int64_t count, const void *values) {
    if (!status) status = api.set(pack, attribute, type, count, values);
  };
  set(DNN_ATTR_VARIANT_PACK_UNIQUE_IDS, DNN_TYPE_INT64, bound.count, bound.uids);
  set(DNN_ATTR_VARIANT_PACK_DATA_POINTERS, DNN_TYPE_VOID_PTR, bound.count, bound.pointers);
  set(DNN_ATTR_VARIANT_PACK_WORKSPACE, DNN_TYPE_VOID_PTR, 1, &workspace);
  if (!status) status = api.finalize(pack);
  if (!status) status = api.execute(handle, plan, pack);
  if (pack) api.descriptor_destroy(pack);
  return status;
}

// Under the lock.
int32_t run(zs_call *call, const Cudnn &api, Plans &all, const Part &part) {
  const AttentionShape &s = part.shape;
  const int64_t delta_bytes = s.backward ? (s.b * s.hq * s.tq * 4 + 255) / 256 * 256 : 0;
  const size_t bytes = static_cast<size_t>(delta_bytes + part.plan.workspace);
  char *memory = nullptr;
  if (bytes > 0) {
    Context *context = context_of(call);
    memory = static_cast<char *>(context->workspace(context, bytes));
    if (!memory)
      return fail(call, ZS_NO_MEMORY, "no work space of %zu bytes for cuDNN; ZEROSHARD_ATTENTION=own needs less", bytes);
  }
  int status = 0;
  if (all.stream != call->stream) status = api.set_stream(all.handle, call->stream);
  all.stream = status ? nullptr : call->stream;
  Values values;
  values.scale = static_cast<float>(call->scalars[ATTENTION_SCALE]);
  values.position = static_cast<int32_t>(integer(call, ATTENTION_Q_POSITION));
  for (int64_t sample = 0; sample < integer(call, ATTENTION_B) && !status; sample += s.b)
    for (int64_t head = 0; head < integer(call, ATTENTION_HKV) && !status; head += s.hkv) {
      const Binding bound = bind_part(call, s, sample, head, reinterpret_cast<float *>(memory), values);
      status = execute(api, all.handle, part.plan.plan, bound, memory ? memory + delta_bytes : nullptr);
    }
  if (status) return fail(call, ZS_DEVICE_ERROR, "%s", said(api, "attention", status).c_str());
  return ZS_OK;
}

}  // namespace

int32_t attention_cudnn(zs_call *call, bool backward, bool *done) {
  static const std::string choice = wanted();
  *done = false;
  if (choice == "own") return ZS_OK;
  if (choice != "" && choice != "cudnn")
    return fail(call, ZS_BAD_ARGUMENT, "ZEROSHARD_ATTENTION is '%s'; it must be cudnn or own, or not be set",
                choice.c_str());
  const auto without = [&](const char *why) {
    if (choice.empty()) return int32_t{ZS_OK};
    return fail(call, ZS_UNSUPPORTED, "attention through cuDNN, as ZEROSHARD_ATTENTION demands: %.150s", why);
  };
  if (const char *why = unsuited(call, backward)) return without(why);
  // There NVIDIA's own frontend has one engine alone for a backward that gives the same bits again, which cuDNN's
  // heuristics do not propose for our graph.
  if (choice.empty() && backward && context_of(call)->capability / 10 == 10) return ZS_OK;
  char error[ZS_ERROR_BYTES] = "";
  const Cudnn *api = cudnn(error);
  if (!api) return without(error);
  if (api->version < kCudnnAnyKeys && integer(call, ATTENTION_TK) % 128 != 0)
    return without("cuDNN before 9.16 takes numbers of keys that divide by 128");
  Plans &all = plans();
  std::lock_guard guard(all.lock);
  const Part &part = part_of(*api, all, shape_of(call, backward));
  if (!part.plan.plan) return without(part.plan.reason.c_str());
  *done = true;
  return run(call, *api, all, part);
}

std::string attention_choice() {
  const std::string choice = wanted();
  if (choice == "own") return "attention goes through our own kernels, as ZEROSHARD_ATTENTION says";
  char error[ZS_ERROR_BYTES] = "";
  if (!cudnn(error)) return std::string("attention goes through our own kernels: ") + error;
  if (choice == "cudnn") return "attention goes through cuDNN alone, as ZEROSHARD_ATTENTION says";
  Plans &all = plans();
  std::lock_guard guard(all.lock);
  const std::string what = "attention in bf16 and f16 goes through cuDNN where it has an engine, else our own kernels";
  return all.refused.empty() ? what : what + ", as in " + all.refused;
}

}  // namespace zs::cuda
