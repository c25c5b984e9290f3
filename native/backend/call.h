// A call of a kernel as both backends' launchers read it: tensors and scalars by their place in the op's header.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "backend.h"

namespace zs {

template <class T> T *data(const zs_call *call, int index) { return static_cast<T *>(call->tensors[index].data); }
inline bool present(const zs_call *call, int index) { return call->tensors[index].data != nullptr; }
inline int64_t integer(const zs_call *call, int index) { return static_cast<int64_t>(call->scalars[index]); }

__attribute__((format(printf, 3, 4))) inline int32_t fail(zs_call *call, zs_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(call->error, sizeof call->error, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace zs
