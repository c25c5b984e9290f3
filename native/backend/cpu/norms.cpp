// layer_norm and rms_norm, forward and backward. Weight gradients are summed per fixed block of rows, then over
// the blocks in order, so that the number of threads never changes a result.
#include <algorithm>

#include "../../ops/norm.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
namespace {
constexpr int64_t kRowBlock = 32;

// Of a call, by the places of its tensors; -1: has none.
struct ForwardPlaces { int y, sum, mean, rstd, x, weight, bias, residual; };
struct BackwardPlaces { int dx, dweight, dbias, dy, x, weight, mean, rstd, dresidual; };

template <class T> T *at(const zs_call *call, int place) { return place < 0 ? nullptr : data<T>(call, place); }

int32_t forward(zs_call *call, const ForwardPlaces &p) {
  const int64_t rows = integer(call, NORM_ROWS), cols = integer(call, NORM_COLS);
  const int dtype = dtype_of(call, p.x);
  return by_float(call, dtype, [&]<class T>(T) {
    std::vector<float> wide_weight, wide_bias;
    const T *weight = at<T>(call, p.weight), *bias = at<T>(call, p.bias);
    const NormForward f{at<T>(call, p.y), at<T>(call, p.sum), at<float>(call, p.mean), at<float>(call, p.rstd), at<T>(call, p.x),
                        at<T>(call, p.residual), weight ? row_of(weight, cols, wide_weight) : nullptr,
                        bias ? row_of(bias, cols, wide_bias) : nullptr, cols, static_cast<float>(call->scalars[NORM_EPS])};
    parallel_for(call, rows, row_grain(cols), [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(static_cast<size_t>(cols));
      row_kernels().norms[dtype].forward(f, begin, end, scratch.data());
    });
    return int32_t{ZS_OK};
  });
}

int32_t backward(zs_call *call, const BackwardPlaces &p) {
  const int64_t rows = integer(call, NORM_ROWS), cols = integer(call, NORM_COLS), blocks = (rows + kRowBlock - 1) / kRowBlock;
  const int dtype = dtype_of(call, p.x);
  float *dweight = at<float>(call, p.dweight), *dbias = at<float>(call, p.dbias);
  return by_float(call, dtype, [&]<class T>(T) {
    std::vector<float> wide_weight, partial(static_cast<size_t>(blocks * cols * 2));
    const T *weight = at<T>(call, p.weight);
    const NormBackward f{at<T>(call, p.dx), at<T>(call, p.dy), at<T>(call, p.x), at<T>(call, p.dresidual), at<float>(call, p.mean),
                         at<float>(call, p.rstd), weight ? row_of(weight, cols, wide_weight) : nullptr, cols};
    parallel_for(call, blocks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(static_cast<size_t>(2 * cols));
      for (int64_t block = begin; block < end; block++) {
        float *dw = partial.data() + block * cols * 2;
        row_kernels().norms[dtype].backward(f, block * kRowBlock, std::min(rows, (block + 1) * kRowBlock), dweight ? dw : nullptr,
                                            dbias ? dw + cols : nullptr, scratch.data());
      }
    });
    for (int64_t block = 0; block < blocks; block++) {
      const float *dw = partial.data() + block * cols * 2, *db = dw + cols;
      if (dweight) for (int64_t c = 0; c < cols; c++) dweight[c] += dw[c];
      if (dbias) for (int64_t c = 0; c < cols; c++) dbias[c] += db[c];
    }
    return int32_t{ZS_OK};
  });
}
}  // namespace

int32_t layer_norm_forward(zs_call *call) {
  return forward(call, {LAYER_NORM_Y, LAYER_NORM_SUM, LAYER_NORM_MEAN, LAYER_NORM_RSTD, LAYER_NORM_X, LAYER_NORM_WEIGHT,
                        LAYER_NORM_BIAS, LAYER_NORM_RESIDUAL});
}

int32_t rms_norm_forward(zs_call *call) {
  return forward(call, {RMS_NORM_Y, RMS_NORM_SUM, -1, RMS_NORM_RSTD, RMS_NORM_X, RMS_NORM_WEIGHT, -1, RMS_NORM_RESIDUAL});
}

int32_t layer_norm_backward(zs_call *call) {
  return backward(call, {LAYER_NORM_DX, LAYER_NORM_DWEIGHT, LAYER_NORM_DBIAS, LAYER_NORM_BACKWARD_DY, LAYER_NORM_BACKWARD_X,
                         LAYER_NORM_BACKWARD_WEIGHT, LAYER_NORM_BACKWARD_MEAN, LAYER_NORM_BACKWARD_RSTD,
                         LAYER_NORM_BACKWARD_DRESIDUAL});
}

int32_t rms_norm_backward(zs_call *call) {
  return backward(call, {RMS_NORM_DX, RMS_NORM_DWEIGHT, -1, RMS_NORM_BACKWARD_DY, RMS_NORM_BACKWARD_X, RMS_NORM_BACKWARD_WEIGHT, -1,
                         RMS_NORM_BACKWARD_RSTD, RMS_NORM_BACKWARD_DRESIDUAL});
}

}  // namespace zs::cpu
