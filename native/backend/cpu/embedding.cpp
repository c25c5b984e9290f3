// embedding: rows of a table by id, and the deterministic sum of gradients back into the rows.
#include "../../ops/embedding.h"
#include "floats.h"

namespace zs::cpu {

int32_t embedding_forward(zs_call *call) {
  const int64_t rows = integer(call, EMBEDDING_ROWS), cols = integer(call, EMBEDDING_COLS);
  const int64_t start = integer(call, EMBEDDING_VOCAB_START), vocab = integer(call, EMBEDDING_VOCAB_ROWS);
  const int64_t full = integer(call, EMBEDDING_VOCAB_FULL);
  const int32_t *ids = data<int32_t>(call, EMBEDDING_IDS);
  for (int64_t r = 0; r < rows; r++) {
    if (ids[r] < 0 || ids[r] >= full) {
      return fail(call, ZS_BAD_ARGUMENT, "id %d at %ld is outside [0, %ld)", ids[r], (long)r, (long)full);
    }
  }
  return by_float(call, dtype_of(call, EMBEDDING_TABLE), [&]<class T>(T) {
    const T *table = data<T>(call, EMBEDDING_TABLE);
    T *y = data<T>(call, EMBEDDING_Y);
    parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const int64_t id = ids[r] - start;
        const bool here = id >= 0 && id < vocab;
        for (int64_t c = 0; c < cols; c++) y[r * cols + c] = here ? table[id * cols + c] : from_float<T>(0);
      }
    });
    return int32_t{ZS_OK};
  });
}

// Each piece owns some columns of every row, so rows are summed in the order of r whatever the threads do.
int32_t embedding_backward(zs_call *call) {
  const int64_t rows = integer(call, EMBEDDING_ROWS), cols = integer(call, EMBEDDING_COLS);
  const int64_t start = integer(call, EMBEDDING_VOCAB_START), vocab = integer(call, EMBEDDING_VOCAB_ROWS);
  return by_float(call, dtype_of(call, EMBEDDING_BACKWARD_DY), [&]<class T>(T) {
    const T *dy = data<T>(call, EMBEDDING_BACKWARD_DY);
    const int32_t *ids = data<int32_t>(call, EMBEDDING_BACKWARD_IDS);
    float *dtable = data<float>(call, EMBEDDING_DTABLE);
    parallel_for(call, cols, 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = 0; r < rows; r++) {
        const int64_t id = ids[r] - start;
        if (id < 0 || id >= vocab) continue;
        for (int64_t c = begin; c < end; c++) dtable[id * cols + c] += to_float(dy[r * cols + c]);
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
