// cuDNN's backend API without a device: descriptors that check each attribute's type, count and time, and an execution
// that reads the graph of operations as its documentation defines them, in float64.
#pragma once
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "../../../native/backend/cpu/float16.h"
#include "../../../native/backend/cuda/libraries/cudnn.h"
#include "../check.h"

namespace zs::cuda::fake {

using cpu::bf16, cpu::f16, cpu::to_bf16, cpu::to_f16, cpu::to_float;

struct Attribute {
  int type;
  int64_t count;
  std::vector<char> bytes;
};

struct Descriptor {
  int type;
  bool final = false;
  std::map<int, Attribute> set;

  bool has(int attribute) const { return set.count(attribute) != 0; }
  template <class T> std::vector<T> list(int attribute) const {
    CHECK(has(attribute));
    const Attribute &found = set.at(attribute);
    CHECK(found.bytes.size() == static_cast<size_t>(found.count) * sizeof(T));
    std::vector<T> values(static_cast<size_t>(found.count));
    memcpy(values.data(), found.bytes.data(), found.bytes.size());
    return values;
  }
  template <class T> T one(int attribute) const {
    const std::vector<T> values = list<T>(attribute);
    CHECK(values.size() == 1);
    return values[0];
  }
  const Descriptor *part(int attribute) const { return static_cast<Descriptor *>(one<void *>(attribute)); }
};

inline std::set<Descriptor *> alive;
inline int num_plans = 0, num_executions = 0, num_streams = 0;
inline bool no_handle = false, no_engine = false, no_order = false, fails = false;
inline int64_t workspace_scale = 2;  // bytes for each weight
inline char scratch[1 << 16];
inline void *stream_set = nullptr;
inline void *const kHandle = scratch, *const kStream = scratch + 8;

inline size_t size_of(int type) {
  switch (type) {
    case DNN_TYPE_DATA_TYPE: case DNN_TYPE_HEUR_MODE: case DNN_TYPE_POINTWISE_MODE: case DNN_TYPE_NUMERICAL_NOTE:
    case DNN_TYPE_REDUCTION_OPERATOR_TYPE: return 4;
    case DNN_TYPE_BOOLEAN: case DNN_TYPE_CHAR: return 1;
    case DNN_TYPE_HANDLE: case DNN_TYPE_INT64: case DNN_TYPE_VOID_PTR: case DNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    default: CHECK(!"an unknown type of attribute"); return 0;
  }
}

// By the header's numbers rather than by our names for them. What a descriptor may have: attribute, type of it, least and largest count, whether it must be there, and, for
// descriptors, the type of what it points to.
struct Rule {
  int attribute, type, least, most;
  bool needed;
  int of = -1;
};
inline const std::map<int, std::vector<Rule>> kRules = {
    {DNN_TENSOR, {{900, DNN_TYPE_INT64, 1, 1, true}, {901, DNN_TYPE_DATA_TYPE, 1, 1, true}, {902, DNN_TYPE_INT64, 1, 8, true},
                  {903, DNN_TYPE_INT64, 1, 8, true}, {906, DNN_TYPE_INT64, 1, 1, true}, {907, DNN_TYPE_BOOLEAN, 1, 1, false},
                  {908, DNN_TYPE_BOOLEAN, 1, 1, false}}},
    {DNN_POINTWISE, {{0, DNN_TYPE_POINTWISE_MODE, 1, 1, true}, {1, DNN_TYPE_DATA_TYPE, 1, 1, true},
                     {9, DNN_TYPE_INT64, 1, 1, false}}},
    {DNN_OPERATION_POINTWISE, {{750, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_POINTWISE},
                               {751, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                               {752, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, false, DNN_TENSOR},
                               {753, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                               {758, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, false, DNN_TENSOR}}},
    {DNN_MATMUL, {{1500, DNN_TYPE_DATA_TYPE, 1, 1, true}}},
    {DNN_OPERATION_MATMUL, {{1520, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                            {1521, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                            {1522, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                            {1523, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_MATMUL}}},
    {DNN_REDUCTION, {{1600, DNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, 1, true}, {1601, DNN_TYPE_DATA_TYPE, 1, 1, true}}},
    {DNN_OPERATION_REDUCTION, {{1610, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                               {1611, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                               {1612, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_REDUCTION}}},
    {DNN_OPERATION_RESHAPE, {{2200, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR},
                             {2201, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_TENSOR}}},
    {DNN_OPERATIONGRAPH, {{800, DNN_TYPE_HANDLE, 1, 1, true}, {801, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 64, true}}},
    {DNN_ENGINEHEUR, {{200, DNN_TYPE_HEUR_MODE, 1, 1, true},
                      {201, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_OPERATIONGRAPH}}},
    {DNN_EXECUTION_PLAN, {{400, DNN_TYPE_HANDLE, 1, 1, true},
                          {401, DNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true, DNN_ENGINECFG}}},
    {DNN_VARIANT_PACK, {{1000, DNN_TYPE_INT64, 1, 64, true}, {1001, DNN_TYPE_VOID_PTR, 1, 64, true},
                        {1003, DNN_TYPE_VOID_PTR, 1, 1, true}}},
    {DNN_ENGINE, {}}, {DNN_ENGINECFG, {}}};

inline Descriptor *live(DnnDescriptor given) {
  Descriptor *descriptor = static_cast<Descriptor *>(given);
  CHECK(alive.count(descriptor) == 1);
  return descriptor;
}

inline int create(int type, DnnDescriptor *made) {
  CHECK(kRules.count(type) == 1);
  Descriptor *descriptor = new Descriptor{type, false, {}};
  alive.insert(descriptor);
  return *made = descriptor, 0;
}

inline int destroy(DnnDescriptor given) {
  Descriptor *descriptor = live(given);
  alive.erase(descriptor);
  return delete descriptor, 0;
}

inline int set(DnnDescriptor given, int attribute, int type, int64_t count, const void *values) {
  Descriptor *to = live(given);
  CHECK(!to->final && values && !to->has(attribute));
  const Rule *rule = nullptr;
  for (const Rule &one : kRules.at(to->type))
    if (one.attribute == attribute) rule = &one;
  CHECK(rule && rule->type == type && count >= rule->least && count <= rule->most);
  const char *begin = static_cast<const char *>(values);
  to->set[attribute] = {type, count, {begin, begin + static_cast<size_t>(count) * size_of(type)}};
  if (type != DNN_TYPE_BACKEND_DESCRIPTOR) return 0;
  for (void *part : to->list<void *>(attribute)) CHECK(live(part)->final && (rule->of < 0 || live(part)->type == rule->of));
  return 0;
}

inline std::vector<int64_t> dims(const Descriptor *t) { return t->list<int64_t>(DNN_ATTR_TENSOR_DIMENSIONS); }
inline bool inside(const Descriptor *t) { return t->has(DNN_ATTR_TENSOR_IS_VIRTUAL); }
inline bool by_value(const Descriptor *t) { return t->has(DNN_ATTR_TENSOR_IS_BY_VALUE); }

// Tensors that an operation reads; the last is what it writes.
inline std::vector<const Descriptor *> tensors_of(const Descriptor *operation) {
  std::vector<const Descriptor *> found;
  for (int attribute : {751, 752, 758, 753, 1520, 1521, 1522, 1610, 1611, 2200, 2201})
    if (operation->has(attribute)) found.push_back(operation->part(attribute));
  return found;
}

// Every tensor inside is written once, before it is read; uids stand for one tensor; nothing is made for no one.
inline void check_graph(const Descriptor *graph) {
  std::map<int64_t, const Descriptor *> names;
  std::set<const Descriptor *> written, read;
  CHECK(graph->one<void *>(800) == kHandle);
  for (void *operation : graph->list<void *>(801)) {
    const std::vector<const Descriptor *> all = tensors_of(live(operation));
    for (size_t i = 0; i < all.size(); i++) {
      const Descriptor *&named = names[all[i]->one<int64_t>(DNN_ATTR_TENSOR_UNIQUE_ID)];
      CHECK(!named || named == all[i]);
      named = all[i];
      if (i + 1 == all.size()) continue;
      CHECK(!inside(all[i]) || written.count(all[i]));
      read.insert(all[i]);
    }
    CHECK(written.insert(all.back()).second && !by_value(all.back()));
  }
  for (const Descriptor *tensor : written) CHECK(!inside(tensor) || read.count(tensor));
}

inline int finalize(DnnDescriptor given) {
  Descriptor *descriptor = live(given);
  CHECK(!descriptor->final);
  for (const Rule &rule : kRules.at(descriptor->type)) CHECK(!rule.needed || descriptor->has(rule.attribute));
  if (descriptor->type == DNN_OPERATIONGRAPH) check_graph(descriptor);
  if (descriptor->type == DNN_VARIANT_PACK)
    CHECK(descriptor->list<int64_t>(1000).size() == descriptor->list<void *>(1001).size());
  if (descriptor->type == DNN_EXECUTION_PLAN) {
    const int64_t kind = descriptor->part(401)->one<int64_t>(-2);
    CHECK(descriptor->one<void *>(400) == kHandle && kind != 0);  // 0: the one without an order of summation
    if (kind == 1) return 3000;                                   // not supported, after all
    num_plans++;
  }
  descriptor->final = true;
  return 0;
}

template <class T> void put(Descriptor *to, int attribute, int type, T value) {
  const char *begin = reinterpret_cast<const char *>(&value);
  to->set[attribute] = {type, 1, {begin, begin + sizeof value}};
}

inline int64_t num_weights(const Descriptor *graph) {
  int64_t most = 0;
  for (void *operation : graph->list<void *>(801))
    if (live(operation)->type == DNN_OPERATION_MATMUL) {
      const std::vector<int64_t> n = dims(live(operation)->part(DNN_ATTR_OPERATION_MATMUL_CDESC));
      if (most == 0) most = n[0] * n[1] * n[2] * n[3];
    }
  return most;
}

// -1: an engine configuration's graph; -2: its place among the proposals.
inline int get(DnnDescriptor given, int attribute, int type, int64_t room, int64_t *count, void *values) {
  Descriptor *from = live(given);
  CHECK(from->final);
  if (from->type == DNN_ENGINEHEUR && attribute == DNN_ATTR_ENGINEHEUR_RESULTS) {
    CHECK(type == DNN_TYPE_BACKEND_DESCRIPTOR && room >= 3 && from->one<int32_t>(200) == DNN_HEUR_MODE_A);
    *count = no_engine ? 0 : no_order ? 1 : 3;
    for (int64_t i = 0; i < *count; i++) {
      Descriptor *to = live(static_cast<void **>(values)[i]);
      CHECK(to->type == DNN_ENGINECFG && !to->final);
      put(to, -1, DNN_TYPE_BACKEND_DESCRIPTOR, from->one<void *>(201));
      put(to, -2, DNN_TYPE_INT64, i);
      to->final = true;
    }
  } else if (from->type == DNN_ENGINECFG) {
    CHECK(attribute == DNN_ATTR_ENGINECFG_ENGINE && type == DNN_TYPE_BACKEND_DESCRIPTOR && room == 1);
    Descriptor *to = live(*static_cast<void **>(values));
    CHECK(to->type == DNN_ENGINE && !to->final);
    *count = 1;
    to->final = true;
    put(to, -2, DNN_TYPE_INT64, from->one<int64_t>(-2));
  } else if (from->type == DNN_ENGINE) {
    CHECK(attribute == DNN_ATTR_ENGINE_NUMERICAL_NOTE && type == DNN_TYPE_NUMERICAL_NOTE && room >= 2);
    const int32_t notes[2] = {0, DNN_NUMERICAL_NOTE_NONDETERMINISTIC};
    *count = from->one<int64_t>(-2) == 0 ? 2 : 1;
    memcpy(values, notes, static_cast<size_t>(*count) * 4);
  } else {
    CHECK(from->type == DNN_EXECUTION_PLAN && attribute == DNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && room == 1);
    CHECK(type == DNN_TYPE_INT64);
    *static_cast<int64_t *>(values) = workspace_scale * num_weights(from->part(401)->part(-1));
    *count = 1;
  }
  return 0;
}

}  // namespace zs::cuda::fake
