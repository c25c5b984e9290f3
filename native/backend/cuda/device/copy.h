// Rows of bytes from one place to another, by the widest unit (16 bytes at best) that addresses, steps and widths allow.
#pragma once
#include "launch.h"

namespace zs::cuda {

// Numbers below 2^32 are divided in 32 bits, which is several times cheaper.
template <bool Small> __device__ inline int64_t quotient(int64_t a, int64_t b) {
  if constexpr (Small) return static_cast<int64_t>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
  else return a / b;
}

template <class Unit, bool Small> struct CopyRows {
  char *y;
  const char *x;
  int64_t cols, y_row, x_row;  // units per row, bytes between rows
  __device__ void operator()(int64_t i, int) const {
    const int64_t r = quotient<Small>(i, cols), c = i - r * cols;
    reinterpret_cast<Unit *>(y + r * y_row)[c] = reinterpret_cast<const Unit *>(x + r * x_row)[c];
  }
};

template <class Unit> int32_t copy_by(zs_call *call, char *y, const char *x, int64_t rows, int64_t bytes, int64_t y_row, int64_t x_row) {
  const int64_t cols = bytes / static_cast<int64_t>(sizeof(Unit)), count = rows * cols;
  if (count < int64_t{1} << 32) return run_packs<1>(call, count, CopyRows<Unit, true>{y, x, cols, y_row, x_row});
  return run_packs<1>(call, count, CopyRows<Unit, false>{y, x, cols, y_row, x_row});
}

// rows of `bytes` each, y_row and x_row bytes apart.
inline int32_t copy_rows(zs_call *call, char *y, const char *x, int64_t rows, int64_t bytes, int64_t y_row, int64_t x_row) {
  if (rows == 0 || bytes == 0) return ZS_OK;
  if (rows == 1) y_row = x_row = 0;
  const uint64_t all = reinterpret_cast<uintptr_t>(y) | reinterpret_cast<uintptr_t>(x) | static_cast<uint64_t>(bytes) |
                       static_cast<uint64_t>(y_row) | static_cast<uint64_t>(x_row);
  if (all % 16 == 0) return copy_by<uint4>(call, y, x, rows, bytes, y_row, x_row);
  if (all % 8 == 0) return copy_by<uint2>(call, y, x, rows, bytes, y_row, x_row);
  if (all % 4 == 0) return copy_by<uint32_t>(call, y, x, rows, bytes, y_row, x_row);
  if (all % 2 == 0) return copy_by<uint16_t>(call, y, x, rows, bytes, y_row, x_row);
  return copy_by<uint8_t>(call, y, x, rows, bytes, y_row, x_row);
}

inline int32_t copy_bytes(zs_call *call, char *y, const char *x, int64_t bytes) {
  // One row; its rest behind the last whole unit is a second copy.
  const uint64_t ends = reinterpret_cast<uintptr_t>(y) | reinterpret_cast<uintptr_t>(x);
  const int64_t whole = ends % 16 == 0 ? bytes / 16 * 16 : bytes;
  if (const int32_t bad = copy_rows(call, y, x, 1, whole, 0, 0)) return bad;
  return copy_rows(call, y + whole, x + whole, 1, bytes - whole, 0, 0);
}

}  // namespace zs::cuda
