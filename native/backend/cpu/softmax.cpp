// softmax and log-softmax over rows, and their backward.
#include <cmath>

#include "../../ops/softmax.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {

int32_t softmax_forward(zs_call *call) {
  const int64_t rows = integer(call, 0), cols = integer(call, 1);
  const bool log = integer(call, 2) != 0;
  const RowKernels &kernels = row_kernels();
  return by_float(call, dtype_of(call, SOFTMAX_X), [&]<class T>(T) {
    const T *x = data<T>(call, SOFTMAX_X);
    T *y = data<T>(call, SOFTMAX_Y);
    parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
      std::vector<float> h(static_cast<size_t>(cols));
      for (int64_t r = begin; r < end; r++) {
        widen(h.data(), x + r * cols, cols);
        const float top = kernels.maximum(h.data(), cols);
        const float total = kernels.exp_sum(h.data(), cols, 1, top), shift = top + std::log(total), factor = 1 / total;
        if (log) widen(h.data(), x + r * cols, cols);
        for (float &value : h) value = log ? value - shift : value * factor;
        narrow(y + r * cols, h.data(), cols);
      }
    });
    return int32_t{ZS_OK};
  });
}

int32_t softmax_backward(zs_call *call) {
  const int64_t rows = integer(call, 0), cols = integer(call, 1);
  const bool log = integer(call, 2) != 0;
  return by_float(call, dtype_of(call, SOFTMAX_BACKWARD_Y), [&]<class T>(T) {
    const T *dy = data<T>(call, SOFTMAX_BACKWARD_DY), *y = data<T>(call, SOFTMAX_BACKWARD_Y);
    T *dx = data<T>(call, SOFTMAX_DX);
    parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const T *g = dy + r * cols, *p = y + r * cols;
        double dot = 0;
        for (int64_t c = 0; c < cols; c++) dot += log ? to_float(g[c]) : static_cast<double>(to_float(g[c])) * to_float(p[c]);
        const float mean = static_cast<float>(dot);
        for (int64_t c = 0; c < cols; c++) {
          const float d = to_float(g[c]), q = to_float(p[c]);
          dx[r * cols + c] = from_float<T>(log ? d - std::exp(q) * mean : q * (d - mean));
        }
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
