// What every CPU kernel may use: the thread pool, the level of SIMD found at run time, the call.
// A kernel file is op.cpp (plain C++ and dispatch); op_avx2.cpp, op_avx512.cpp hold the wide versions where they pay.
#pragma once
#include <cstdint>

#include "../../core/threadpool.h"
#include "../call.h"

namespace zs::cpu {

enum class Simd { scalar, avx2, avx512, avx512bf16 };
Simd simd();  // best level of this machine; ZS_SIMD=scalar|avx2|avx512 lowers it (for tests)

// Runs body(begin, end) over [0, count) in pieces of at least `grain` on the pool; returns when all are done.
// Which thread gets which piece never changes a result: pieces must be independent.
template <class Body>
void parallel_for(const zs_call *call, int64_t count, int64_t grain, Body body) {
  static_cast<ThreadPool *>(call->context)->parallel_for(count, grain, body);
}

}  // namespace zs::cpu
