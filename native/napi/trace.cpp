// The trace of streams, as columns: one typed array a field. Ranges for NVTX tools.
#include "../core/trace.h"

#include "../core/nvtx.h"

#include "environment.h"

namespace zs::napi {

namespace {

template <class Element>
struct TypeOf;
template <>
struct TypeOf<double> {
  static constexpr napi_typedarray_type type = napi_float64_array;
};
template <>
struct TypeOf<int32_t> {
  static constexpr napi_typedarray_type type = napi_int32_array;
};

template <class Element, class Field>
void set_column(napi_env env, napi_value object, const char *name,
                const std::vector<TraceRecord> &records, Field field) {
  void *data = nullptr;
  napi_value buffer = nullptr, column = nullptr;
  napi_create_arraybuffer(env, records.size() * sizeof(Element), &data, &buffer);
  for (size_t i = 0; i < records.size(); i++)
    static_cast<Element *>(data)[i] = static_cast<Element>(field(records[i]));
  napi_create_typedarray(env, TypeOf<Element>::type, records.size(), buffer, 0, &column);
  set(env, object, name, column);
}

// Microseconds from the monotonic clock to the wall's.
double wall_offset() {
  timespec wall;
  clock_gettime(CLOCK_REALTIME, &wall);
  int64_t monotonic = static_cast<int64_t>(monotonic_now());
  int64_t now = static_cast<int64_t>(wall.tv_sec) * 1'000'000'000 + wall.tv_nsec;
  return static_cast<double>(now - monotonic) / 1000;
}

}  // namespace

napi_value trace_start(Call &call) {
  int capacity = integer_of(call, call.arguments[0], 0, (1 << 24) + 1, "capacity");
  call.runtime().start_trace(static_cast<size_t>(capacity));
  return nullptr;
}

napi_value trace_take(Call &call) {
  uint64_t dropped = 0;
  std::vector<TraceRecord> records = call.runtime().take_trace(&dropped);
  napi_env env = call.env;
  napi_value result = nullptr, names = nullptr;
  napi_create_object(env, &result);
  napi_create_array(env, &names);
  std::vector<const char *> known;  // a few dozen; tasks of one operation share the pointer
  auto name_of = [&](const TraceRecord &record) {
    size_t i = 0;
    while (i < known.size() && known[i] != record.name) i++;
    if (i == known.size()) {
      known.push_back(record.name);
      napi_set_element(env, names, static_cast<uint32_t>(i), make_string(env, record.name));
    }
    return i;
  };
  using Record = const TraceRecord &;
  set_column<int32_t>(env, result, "name", records, name_of);
  set(env, result, "names", names);
  set_column<int32_t>(env, result, "stream", records, [](Record r) { return r.stream; });
  set_column<double>(env, result, "queued", records, [](Record r) { return r.queued; });
  set_column<double>(env, result, "launched", records, [](Record r) { return r.launched; });
  set_column<double>(env, result, "start", records, [](Record r) { return r.start; });
  set_column<double>(env, result, "end", records, [](Record r) { return r.end; });
  set_column<double>(env, result, "flops", records, [](Record r) { return r.detail.flops; });
  set_column<int32_t>(env, result, "kind", records, [](Record r) { return r.detail.kind; });
  set_column<int32_t>(env, result, "group", records, [](Record r) { return r.detail.group; });
  set_column<int32_t>(env, result, "groupSize", records,
                      [](Record r) { return r.detail.group_size; });
  set_column<int32_t>(env, result, "dtype", records, [](Record r) { return r.detail.dtype; });
  set_column<double>(env, result, "count", records, [](Record r) { return r.detail.count; });
  set_column<double>(env, result, "bytes", records, [](Record r) { return r.detail.bytes; });
  set(env, result, "dropped", make_number(env, static_cast<double>(dropped)));
  set(env, result, "wallOffset", make_number(env, wall_offset()));
  return result;
}

napi_value ranges_on(Call &call) {
  napi_value result = nullptr;
  napi_get_boolean(call.env, nvtx::on(), &result);
  return result;
}

// A tool's numbers have 64 bits: they travel as BigInt.
napi_value range_start(Call &call) {
  std::string name = string_of(call, call.arguments[0], "the range's name");
  napi_value result = nullptr;
  napi_create_bigint_uint64(call.env, nvtx::on() ? nvtx::start(name.c_str()) : 0, &result);
  return result;
}

napi_value range_end(Call &call) {
  uint64_t id = 0;
  bool whole = false;
  if (napi_get_value_bigint_uint64(call.env, call.arguments[0], &id, &whole) != napi_ok)
    throw Error{"ARGUMENT", "the range must be what rangeStart gave"};
  if (nvtx::on()) nvtx::end(id);
  return nullptr;
}

}  // namespace zs::napi
