// What every CPU kernel may use: the thread pool, the level of SIMD found at run time, errors.
// A kernel file is op.cpp (plain C++ and dispatch); op_avx2.cpp, op_avx512.cpp hold the wide versions where they pay.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "../../core/threadpool.h"
#include "../backend.h"

namespace zs::cpu {

enum class Simd { scalar, avx2, avx512, avx512bf16 };
Simd simd();  // best level of this machine; ZS_SIMD=scalar|avx2|avx512 lowers it (for tests)

// Runs body(begin, end) over [0, count) in pieces of at least `grain` on the pool; returns when all are done.
// Which thread gets which piece never changes a result: pieces must be independent.
template <class Body>
void parallel_for(const zs_call *call, int64_t count, int64_t grain, Body body) {
  static_cast<ThreadPool *>(call->context)->parallel_for(count, grain, body);
}

template <class T>
T *data(const zs_call *call, int index) { return static_cast<T *>(call->tensors[index].data); }
inline bool present(const zs_call *call, int index) { return call->tensors[index].data != nullptr; }
inline int64_t integer(const zs_call *call, int index) { return static_cast<int64_t>(call->scalars[index]); }

__attribute__((format(printf, 3, 4))) inline int32_t fail(zs_call *call, zs_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(call->error, sizeof call->error, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace zs::cpu
