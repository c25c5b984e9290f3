/* Norms over the last dimension: x, y (rows, cols); mean, rstd (rows) f32; weight, bias (cols) of x's dtype.
 * forward: with residual given, sum = x + residual is written and normalised (sum is required then).
 *   layer: y = (x - mean) * rstd * weight + bias, variance biased; rms: y = x * rstd * weight. No weight means 1.
 * backward: x is what was normalised (sum, if any). dx is written, plus dresidual (rows, cols) where given;
 *   dweight, dbias (cols) f32 are added to, in a fixed order (deterministic). dx may be dy or dresidual.
 * dtypes: x, y, sum, dx, dy, dresidual all f32, bf16 or f16; arithmetic in f32. */
#ifndef ZS_OPS_NORM_H
#define ZS_OPS_NORM_H
enum { LAYER_NORM_Y, LAYER_NORM_MEAN, LAYER_NORM_RSTD, LAYER_NORM_SUM /* optional */, LAYER_NORM_X,
       LAYER_NORM_WEIGHT /* optional */, LAYER_NORM_BIAS /* optional */, LAYER_NORM_RESIDUAL /* optional */ };
enum { LAYER_NORM_DX, LAYER_NORM_DWEIGHT /* optional */, LAYER_NORM_DBIAS /* optional */, LAYER_NORM_BACKWARD_DY,
       LAYER_NORM_BACKWARD_X, LAYER_NORM_BACKWARD_WEIGHT /* optional */, LAYER_NORM_BACKWARD_MEAN,
       LAYER_NORM_BACKWARD_RSTD, LAYER_NORM_BACKWARD_DRESIDUAL /* optional */ };
enum { RMS_NORM_Y, RMS_NORM_RSTD, RMS_NORM_SUM /* optional */, RMS_NORM_X, RMS_NORM_WEIGHT /* optional */,
       RMS_NORM_RESIDUAL /* optional */ };
enum { RMS_NORM_DX, RMS_NORM_DWEIGHT /* optional */, RMS_NORM_BACKWARD_DY, RMS_NORM_BACKWARD_X,
       RMS_NORM_BACKWARD_WEIGHT /* optional */, RMS_NORM_BACKWARD_RSTD, RMS_NORM_BACKWARD_DRESIDUAL /* optional */ };
enum { NORM_ROWS, NORM_COLS, NORM_EPS /* forward only */ };
#endif
