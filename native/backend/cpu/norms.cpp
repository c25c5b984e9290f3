// layer_norm and rms_norm, forward and backward. Weight gradients are summed per fixed block of rows, then over
// the blocks in order, so that the number of threads never changes a result.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../../ops/norm.h"
#include "floats.h"

namespace zs::cpu {
namespace {
constexpr int64_t kRowBlock = 32;

template <class T> struct Forward {
  T *y, *sum;
  float *mean, *rstd;  // mean: nullptr for rms
  const T *x, *weight, *bias, *residual;
};

template <class T> int32_t forward(zs_call *call, const Forward<T> &f) {
  const int64_t rows = integer(call, NORM_ROWS), cols = integer(call, NORM_COLS);
  const float eps = static_cast<float>(call->scalars[NORM_EPS]);
  std::vector<float> bw, bb;
  const float *w = f.weight ? row_of(f.weight, cols, bw) : nullptr, *b = f.bias ? row_of(f.bias, cols, bb) : nullptr;
  parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
    std::vector<float> h(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; r++) {
      widen(h.data(), f.x + r * cols, cols);
      if (f.residual) {
        for (int64_t c = 0; c < cols; c++) h[c] += to_float(f.residual[r * cols + c]);
        narrow(f.sum + r * cols, h.data(), cols);
        widen(h.data(), f.sum + r * cols, cols);
      }
      double total = 0, squares = 0;
      float mean = 0;
      if (f.mean) {
        for (int64_t c = 0; c < cols; c++) total += h[c];
        mean = static_cast<float>(total / static_cast<double>(cols));
        f.mean[r] = mean;
      }
      for (int64_t c = 0; c < cols; c++) squares += static_cast<double>(h[c] - mean) * (h[c] - mean);
      const float rstd = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(cols) + eps));
      f.rstd[r] = rstd;
      for (int64_t c = 0; c < cols; c++) h[c] = (h[c] - mean) * rstd * (w ? w[c] : 1) + (b ? b[c] : 0);
      narrow(f.y + r * cols, h.data(), cols);
    }
  });
  return ZS_OK;
}

template <class T> struct Backward {
  T *dx;
  float *dweight, *dbias;
  const T *dy, *x, *weight;
  const float *mean, *rstd;  // mean: nullptr for rms
  const T *dresidual;
};

template <class T> void backward_row(const Backward<T> &f, int64_t r, int64_t cols, const float *w, float *dw, float *db,
                                     float *g, float *h) {
  const float mean = f.mean ? f.mean[r] : 0, rstd = f.rstd[r];
  widen(g, f.dy + r * cols, cols);
  widen(h, f.x + r * cols, cols);
  double dot = 0, total = 0;
  for (int64_t c = 0; c < cols; c++) {
    const float normal = (h[c] - mean) * rstd;
    if (dw) dw[c] += g[c] * normal;
    if (db) db[c] += g[c];
    g[c] *= w ? w[c] : 1;
    h[c] = normal;
    dot += static_cast<double>(g[c]) * normal;
    total += g[c];
  }
  const float mean_dot = static_cast<float>(dot / static_cast<double>(cols));
  const float mean_total = f.mean ? static_cast<float>(total / static_cast<double>(cols)) : 0;
  for (int64_t c = 0; c < cols; c++) {
    float d = (g[c] - mean_total - h[c] * mean_dot) * rstd;
    if (f.dresidual) d += to_float(f.dresidual[r * cols + c]);
    g[c] = d;
  }
  narrow(f.dx + r * cols, g, cols);
}

template <class T> int32_t backward(zs_call *call, const Backward<T> &f) {
  const int64_t rows = integer(call, NORM_ROWS), cols = integer(call, NORM_COLS);
  const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  std::vector<float> bw, partial(static_cast<size_t>(blocks * cols * 2));
  const float *w = f.weight ? row_of(f.weight, cols, bw) : nullptr;
  parallel_for(call, blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> g(static_cast<size_t>(cols)), h(static_cast<size_t>(cols));
    for (int64_t block = begin; block < end; block++) {
      float *dw = partial.data() + block * cols * 2, *db = dw + cols;
      for (int64_t r = block * kRowBlock; r < std::min(rows, (block + 1) * kRowBlock); r++) {
        backward_row(f, r, cols, w, f.dweight ? dw : nullptr, f.dbias ? db : nullptr, g.data(), h.data());
      }
    }
  });
  for (int64_t block = 0; block < blocks; block++) {
    const float *dw = partial.data() + block * cols * 2, *db = dw + cols;
    if (f.dweight) for (int64_t c = 0; c < cols; c++) f.dweight[c] += dw[c];
    if (f.dbias) for (int64_t c = 0; c < cols; c++) f.dbias[c] += db[c];
  }
  return ZS_OK;
}
}  // namespace

int32_t layer_norm_forward(zs_call *call) {
  return by_float(call, dtype_of(call, LAYER_NORM_X), [&]<class T>(T) {
    return forward<T>(call, {data<T>(call, LAYER_NORM_Y), data<T>(call, LAYER_NORM_SUM), data<float>(call, LAYER_NORM_MEAN),
                             data<float>(call, LAYER_NORM_RSTD), data<T>(call, LAYER_NORM_X), data<T>(call, LAYER_NORM_WEIGHT),
                             data<T>(call, LAYER_NORM_BIAS), data<T>(call, LAYER_NORM_RESIDUAL)});
  });
}

int32_t rms_norm_forward(zs_call *call) {
  return by_float(call, dtype_of(call, RMS_NORM_X), [&]<class T>(T) {
    return forward<T>(call, {data<T>(call, RMS_NORM_Y), data<T>(call, RMS_NORM_SUM), nullptr, data<float>(call, RMS_NORM_RSTD),
                             data<T>(call, RMS_NORM_X), data<T>(call, RMS_NORM_WEIGHT), nullptr, data<T>(call, RMS_NORM_RESIDUAL)});
  });
}

int32_t layer_norm_backward(zs_call *call) {
  return by_float(call, dtype_of(call, LAYER_NORM_BACKWARD_X), [&]<class T>(T) {
    return backward<T>(call, {data<T>(call, LAYER_NORM_DX), data<float>(call, LAYER_NORM_DWEIGHT), data<float>(call, LAYER_NORM_DBIAS),
                              data<T>(call, LAYER_NORM_BACKWARD_DY), data<T>(call, LAYER_NORM_BACKWARD_X),
                              data<T>(call, LAYER_NORM_BACKWARD_WEIGHT), data<float>(call, LAYER_NORM_BACKWARD_MEAN),
                              data<float>(call, LAYER_NORM_BACKWARD_RSTD), data<T>(call, LAYER_NORM_BACKWARD_DRESIDUAL)});
  });
}

int32_t rms_norm_backward(zs_call *call) {
  return by_float(call, dtype_of(call, RMS_NORM_BACKWARD_X), [&]<class T>(T) {
    return backward<T>(call, {data<T>(call, RMS_NORM_DX), data<float>(call, RMS_NORM_DWEIGHT), nullptr,
                              data<T>(call, RMS_NORM_BACKWARD_DY), data<T>(call, RMS_NORM_BACKWARD_X),
                              data<T>(call, RMS_NORM_BACKWARD_WEIGHT), nullptr, data<float>(call, RMS_NORM_BACKWARD_RSTD),
                              data<T>(call, RMS_NORM_BACKWARD_DRESIDUAL)});
  });
}

}  // namespace zs::cpu
