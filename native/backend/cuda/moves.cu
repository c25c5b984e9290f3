// copy_2d, gather: rows of bytes by the widest unit that addresses and widths allow. scatter_add: the deterministic sum
// by id (device/segments.h), told of ids outside.
#include "../../ops/layout.h"
#include "device/copy.h"
#include "device/segments.h"

namespace zs::cuda {
namespace {
template <class Unit> struct Gather {
  Unit *y;
  const Unit *x;
  const int32_t *ids;
  Report *report;
  int64_t units, n, m;
  __device__ void operator()(int64_t i, int) const {
    const int64_t row = i / units, o = row / m, id = ids[row - o * m];
    const bool there = id >= 0 && id < n;
    if (!there) tell(report, ZS_OP_gather, id, n);
    y[i] = there ? x[(o * n + id) * units + i - row * units] : Unit{};
  }
};

// Only tells of ids: there is nothing to copy.
struct CheckIds {
  const int32_t *ids;
  Report *report;
  int64_t n;
  __device__ void operator()(int64_t i, int) const {
    if (ids[i] < 0 || ids[i] >= n) tell(report, ZS_OP_gather, ids[i], n);
  }
};

template <class Unit> int32_t gather_by(zs_call *call, int64_t bytes, int64_t outer, int64_t n, int64_t m) {
  const int64_t units = bytes / static_cast<int64_t>(sizeof(Unit));
  return run_packs<1>(call, outer * m * units, Gather<Unit>{data<Unit>(call, GATHER_Y), data<Unit>(call, GATHER_X),
                                                            data<int32_t>(call, GATHER_IDS), context_of(call)->report, units, n, m});
}
}  // namespace

int32_t copy_2d(zs_call *call) {
  if (count_of(call, COPY_2D_Y) == 0 || count_of(call, COPY_2D_X) == 0) return ZS_OK;
  const int64_t size = bytes_of(dtype_of(call, COPY_2D_Y)), rows = integer(call, COPY_2D_ROWS), cols = integer(call, COPY_2D_COLS);
  char *y = data<char>(call, COPY_2D_Y) + integer(call, COPY_2D_Y_OFFSET) * size;
  const char *x = data<char>(call, COPY_2D_X) + integer(call, COPY_2D_X_OFFSET) * size;
  const int64_t y_row = integer(call, COPY_2D_Y_ROW), x_row = integer(call, COPY_2D_X_ROW);
  if (y_row == cols && x_row == cols) return copy_bytes(call, y, x, rows * cols * size);
  return copy_rows(call, y, x, rows, cols * size, y_row * size, x_row * size);
}

int32_t gather(zs_call *call) {
  const int64_t outer = integer(call, 0), n = integer(call, 1), inner = integer(call, 2), m = integer(call, 3);
  const int64_t size = bytes_of(dtype_of(call, GATHER_Y)), bytes = inner * size;
  if (count_of(call, GATHER_Y) == 0) return run_packs<1>(call, m, CheckIds{data<int32_t>(call, GATHER_IDS), context_of(call)->report, n});
  if (aligned(call, {GATHER_Y, GATHER_X}) && bytes % 16 == 0) return gather_by<uint4>(call, bytes, outer, n, m);
  switch (size) {
    case 8: return gather_by<uint64_t>(call, bytes, outer, n, m);
    case 4: return gather_by<uint32_t>(call, bytes, outer, n, m);
    case 2: return gather_by<uint16_t>(call, bytes, outer, n, m);
    default: return gather_by<uint8_t>(call, bytes, outer, n, m);
  }
}

int32_t scatter_add(zs_call *call) {
  return sum_by_id(call, data<float>(call, SCATTER_ADD_Y), data<float>(call, SCATTER_ADD_X), data<int32_t>(call, SCATTER_ADD_IDS),
                   integer(call, 0), integer(call, 3), integer(call, 2), 0, integer(call, 1),
                   aligned(call, {SCATTER_ADD_Y, SCATTER_ADD_X}), ZS_OP_scatter_add);
}

}  // namespace zs::cuda
