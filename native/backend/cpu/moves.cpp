// copy_2d, permute: moves of elements of any dtype; gather and scatter_add by ids; top_k.
#include <algorithm>
#include <cstring>

#include "../../ops/layout.h"
#include "floats.h"

namespace zs::cpu {
namespace {
constexpr int64_t kSize[] = {4, 2, 2, 4, 1, 8, 1, 1};
int64_t size_of(const zs_call *call, int index) { return kSize[dtype_of(call, index)]; }

int32_t check_ids(zs_call *call, const int32_t *ids, int64_t m, int64_t n) {
  for (int64_t i = 0; i < m; i++) {
    if (ids[i] < 0 || ids[i] >= n) return fail(call, ZS_BAD_ARGUMENT, "id %d at %ld is outside [0, %ld)", ids[i], (long)i, (long)n);
  }
  return ZS_OK;
}
}  // namespace

int32_t copy_2d(zs_call *call) {
  if (count_of(call, COPY_2D_Y) == 0 || count_of(call, COPY_2D_X) == 0) return ZS_OK;
  const int64_t size = size_of(call, COPY_2D_Y), rows = integer(call, COPY_2D_ROWS), cols = integer(call, COPY_2D_COLS);
  char *y = data<char>(call, COPY_2D_Y) + integer(call, COPY_2D_Y_OFFSET) * size;
  const char *x = data<char>(call, COPY_2D_X) + integer(call, COPY_2D_X_OFFSET) * size;
  const int64_t y_row = integer(call, COPY_2D_Y_ROW) * size, x_row = integer(call, COPY_2D_X_ROW) * size;
  parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) memcpy(y + r * y_row, x + r * x_row, static_cast<size_t>(cols * size));
  });
  return ZS_OK;
}

int32_t permute(zs_call *call) {
  const zs_tensor &x = call->tensors[PERMUTE_X], &y = call->tensors[PERMUTE_Y];
  if (y.count == 0) return ZS_OK;
  const int64_t size = size_of(call, PERMUTE_Y);
  int64_t steps[ZS_MAX_DIMS], source[ZS_MAX_DIMS], step = 1;
  for (int d = x.ndim - 1; d >= 0; d--) {
    source[d] = step;
    step *= x.dims[d];
  }
  for (int d = 0; d < y.ndim; d++) steps[d] = source[integer(call, d)];
  const int last = y.ndim - 1;
  const int64_t cols = y.ndim ? y.dims[last] : 1;
  const char *from = data<char>(call, PERMUTE_X);
  char *to = data<char>(call, PERMUTE_Y);
  parallel_for(call, y.count / cols, row_grain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      int64_t at = 0, rest = row;
      for (int d = last - 1; d >= 0; d--) {
        at += rest % y.dims[d] * steps[d];
        rest /= y.dims[d];
      }
      char *out = to + row * cols * size;
      if (y.ndim == 0 || steps[last] == 1) memcpy(out, from + at * size, static_cast<size_t>(cols * size));
      else for (int64_t c = 0; c < cols; c++) memcpy(out + c * size, from + (at + c * steps[last]) * size, static_cast<size_t>(size));
    }
  });
  return ZS_OK;
}

int32_t gather(zs_call *call) {
  const int64_t outer = integer(call, 0), n = integer(call, 1), inner = integer(call, 2), m = integer(call, 3);
  const int32_t *ids = data<int32_t>(call, GATHER_IDS);
  if (int32_t bad = check_ids(call, ids, m, n)) return bad;
  if (count_of(call, GATHER_Y) == 0) return ZS_OK;
  const int64_t bytes = inner * size_of(call, GATHER_Y);
  const char *x = data<char>(call, GATHER_X);
  char *y = data<char>(call, GATHER_Y);
  parallel_for(call, outer * m, row_grain(inner), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) memcpy(y + i * bytes, x + (i / m * n + ids[i % m]) * bytes, static_cast<size_t>(bytes));
  });
  return ZS_OK;
}

int32_t scatter_add(zs_call *call) {
  const int64_t outer = integer(call, 0), n = integer(call, 1), inner = integer(call, 2), m = integer(call, 3);
  const int32_t *ids = data<int32_t>(call, SCATTER_ADD_IDS);
  if (int32_t bad = check_ids(call, ids, m, n)) return bad;
  const float *x = data<float>(call, SCATTER_ADD_X);
  float *y = data<float>(call, SCATTER_ADD_Y);
  parallel_for(call, inner, 64, [&](int64_t begin, int64_t end) {
    for (int64_t o = 0; o < outer; o++) for (int64_t j = 0; j < m; j++) {
      float *to = y + (o * n + ids[j]) * inner;
      const float *from = x + (o * m + j) * inner;
      for (int64_t c = begin; c < end; c++) to[c] += from[c];
    }
  });
  return ZS_OK;
}

int32_t top_k(zs_call *call) {
  const int64_t rows = integer(call, 0), cols = integer(call, 1), k = integer(call, 2);
  int32_t *ids = data<int32_t>(call, TOP_K_IDS);
  return by_float(call, dtype_of(call, TOP_K_X), [&]<class T>(T) {
    const T *x = data<T>(call, TOP_K_X);
    T *values = data<T>(call, TOP_K_VALUES);
    parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
      std::vector<int32_t> order(static_cast<size_t>(cols));
      for (int64_t r = begin; r < end; r++) {
        const T *row = x + r * cols;
        for (int64_t c = 0; c < cols; c++) order[c] = static_cast<int32_t>(c);
        std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int32_t a, int32_t b) {
          const float left = to_float(row[a]), right = to_float(row[b]);
          return left != right ? left > right : a < b;
        });
        for (int64_t i = 0; i < k; i++) {
          ids[r * k + i] = order[i];
          values[r * k + i] = row[order[i]];
        }
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
