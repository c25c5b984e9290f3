// Graphs of a device: lib/binding/native.ts says what each function promises.
#include "environment.h"

namespace zs::napi {

napi_value graph_begin(Call &call) {
  call.runtime().graph_begin();
  return nullptr;
}

napi_value graph_end(Call &call) {
  bool give_up = !is_undefined(call, call.arguments[0]) && boolean_of(call, call.arguments[0], "giveUp");
  return make_number(call.env, call.runtime().graph_end(give_up));
}

napi_value graph_launch(Call &call) {
  double id = number_of(call, call.arguments[0], "graph");
  Bytes changes = bytes_of(call, call.arguments[1], "changes");
  call.runtime().graph_launch(id, static_cast<const double *>(changes.data), changes.size / sizeof(double));
  return nullptr;
}

napi_value graph_drop(Call &call) {
  call.runtime().graph_drop(number_of(call, call.arguments[0], "graph"));
  return nullptr;
}

}  // namespace zs::napi
