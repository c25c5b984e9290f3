// A kernel's body once for f32, bf16 and f16: by_float calls it with a value of the element type.
// wide() and narrow() move ranges between that type and f32.
#pragma once
#include <vector>

#include "cpu.h"
#include "float16.h"

namespace zs::cpu {
namespace {

template <class Body>
int32_t by_float(zs_call *call, int dtype, Body body) {
  switch (dtype) {
    case ZS_F32: return body(float{});
    case ZS_BF16: return body(bf16{});
    case ZS_F16: return body(f16{});
    default: return fail(call, ZS_UNSUPPORTED, "element type %d is no floating-point type", dtype);
  }
}

template <class T> inline void widen(float *y, const T *x, int64_t n) { for (int64_t i = 0; i < n; i++) y[i] = to_float(x[i]); }
template <class T> inline void narrow(T *y, const float *x, int64_t n) { for (int64_t i = 0; i < n; i++) y[i] = from_float<T>(x[i]); }

// A row as f32: the row itself where it is f32, else a converted copy in the buffer.
inline const float *row_of(const float *x, int64_t, std::vector<float> &) { return x; }
template <class T> inline const float *row_of(const T *x, int64_t n, std::vector<float> &buffer) {
  buffer.resize(static_cast<size_t>(n));
  widen(buffer.data(), x, n);
  return buffer.data();
}

inline int dtype_of(const zs_call *call, int index) { return call->tensors[index].dtype; }
inline int64_t count_of(const zs_call *call, int index) { return call->tensors[index].count; }
// Rows per piece so that a piece has some 16 thousand elements.
inline int64_t row_grain(int64_t cols) { return cols >= 16384 ? 1 : 16384 / (cols > 0 ? cols : 1); }

}  // namespace
}  // namespace zs::cpu
