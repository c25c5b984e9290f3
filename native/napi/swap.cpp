// Swap files: opened and closed here; their traffic is the hot call `transfer`.
#include "../io/swap_file.h"

#include "environment.h"

namespace zs::napi {

napi_value open_swap(Call &call) {
  std::string path = string_of(call, call.arguments[0], "path");
  double bytes = number_of(call, call.arguments[1], "bytes");
  if (!(bytes >= 0 && bytes < 0x1p52)) throw Error{"ARGUMENT", text("bytes is %g, not a size", bytes)};
  napi_value given = call.arguments[2];
  auto integer = [&](const char *name, int end) { return integer_of(call, property_of(call, given, name), 1, end, name); };
  auto flag = [&](const char *name) { return boolean_of(call, property_of(call, given, name), name); };
  SwapOptions options;
  options.block_size = integer("blockSize", 1 << 30);
  options.queue_depth = integer("queueDepth", 1 << 16);
  options.threads = integer("threads", 1 << 10);
  options.single_submit = flag("singleSubmit");
  options.overlap_events = flag("overlapEvents");
  int id = call.runtime().open_swap(path, static_cast<int64_t>(bytes), options);
  auto file = call.runtime().swap(id);
  napi_value result = nullptr;
  napi_create_object(call.env, &result);
  set(call.env, result, "id", make_number(call.env, id));
  set(call.env, result, "descriptor", make_number(call.env, file->descriptor()));
  set(call.env, result, "engine", make_string(call.env, file->uring() ? "io_uring" : "threads"));
  napi_value direct = nullptr;
  napi_get_boolean(call.env, file->direct(), &direct);
  set(call.env, result, "direct", direct);
  set(call.env, result, "note", make_string(call.env, file->note()));
  return result;
}

napi_value close_swap(Call &call) {
  call.runtime().close_swap(number_of(call, call.arguments[0], "swap file"));
  return nullptr;
}

}  // namespace zs::napi
