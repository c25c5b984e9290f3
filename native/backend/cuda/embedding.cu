// embedding_forward: rows of a table by id, 16 bytes per thread. embedding_backward: the deterministic sum of gradients
// back into the rows (device/segments.h). Tried on paper: sorting all ids (more passes over them), atomics on floats
// (not deterministic), a scan of all ids by every owner (rows times rows).
#include "../../ops/embedding.h"
#include "device/segments.h"

namespace zs::cuda {
namespace {
template <class Unit> struct Rows {
  Unit *y;
  const Unit *table;
  const int32_t *ids;
  int64_t units, start, vocab, full;  // units per row
  Report *report;
  __device__ void operator()(int64_t i, int) const {
    const int64_t r = i / units, id = ids[r] - start;
    if (i == r * units && (ids[r] < 0 || ids[r] >= full)) tell(report, ZS_OP_embedding_forward, ids[r], full);
    y[i] = id >= 0 && id < vocab ? table[id * units + i - r * units] : Unit{};
  }
};

template <class Unit> int32_t rows_by(zs_call *call, int64_t bytes) {
  const int64_t units = bytes / static_cast<int64_t>(sizeof(Unit));
  const Rows<Unit> body{data<Unit>(call, EMBEDDING_Y), data<Unit>(call, EMBEDDING_TABLE), data<int32_t>(call, EMBEDDING_IDS), units,
                        integer(call, EMBEDDING_VOCAB_START), integer(call, EMBEDDING_VOCAB_ROWS),
                        integer(call, EMBEDDING_VOCAB_FULL), context_of(call)->report};
  return run_packs<1>(call, integer(call, EMBEDDING_ROWS) * units, body);
}
}  // namespace

int32_t embedding_forward(zs_call *call) {
  const int64_t bytes = integer(call, EMBEDDING_COLS) * bytes_of(dtype_of(call, EMBEDDING_TABLE));
  if (bytes == 0) return ZS_OK;
  if (aligned(call, {EMBEDDING_Y, EMBEDDING_TABLE}) && bytes % 16 == 0) return rows_by<uint4>(call, bytes);
  return bytes_of(dtype_of(call, EMBEDDING_TABLE)) == 4 ? rows_by<uint32_t>(call, bytes) : rows_by<uint16_t>(call, bytes);
}

int32_t embedding_backward(zs_call *call) {
  return by_float(call, dtype_of(call, EMBEDDING_BACKWARD_DY), [&]<class T>(T) {
    return sum_by_id(call, data<float>(call, EMBEDDING_DTABLE), data<T>(call, EMBEDDING_BACKWARD_DY),
                     data<int32_t>(call, EMBEDDING_BACKWARD_IDS), 1, integer(call, EMBEDDING_ROWS), integer(call, EMBEDDING_COLS),
                     integer(call, EMBEDDING_VOCAB_START), integer(call, EMBEDDING_VOCAB_ROWS),
                     aligned(call, {EMBEDDING_DTABLE, EMBEDDING_BACKWARD_DY}), -1);
  });
}

}  // namespace zs::cuda
