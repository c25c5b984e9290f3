/* adamw: one pass over flat buffers of equal count.
 *   g = grad * grad_scale * min(1, max_norm / (norm * |grad_scale| + 1e-6)) (no clipping where norm is absent or max_norm 0)
 *   adam_w: param *= 1 - lr * weight_decay; else g += weight_decay * param
 *   m += (1-beta1)(g - m); v = beta2 v + (1-beta2) g^2; param -= lr * (m/bias1) / (sqrt(v/bias2) + eps)
 *   param, m, v f32; out (optional) gets param in bf16 or f16; grad f32, bf16 or f16, set to 0 where zero_grad.
 *   A norm that is not finite leaves everything but the zeroing undone. Elementwise: any cut gives the same bits.
 * A norm whose value does not depend on order or cut, in three steps (the two middle results can be all-reduced):
 *   absmax: y f32 (1) = max(y, max|x|), NaN if any is NaN. x f32, bf16, f16.
 *   sum_squares: y i64 (2) += the squares of x as two fixed-point levels relative to absmax's exponent E:
 *     high counts units of 2^(2E+2-22), low the rounded rest in units of 2^(2E+2-44). Nothing where absmax is 0 or not finite.
 *   norm_finish: y f32 (1) = sqrt of the sum; 0 where absmax is 0, absmax itself where it is not finite. */
#ifndef ZS_OPS_OPTIMIZER_H
#define ZS_OPS_OPTIMIZER_H
enum { ADAMW_PARAM, ADAMW_M, ADAMW_V, ADAMW_OUT /* optional */, ADAMW_GRAD, ADAMW_NORM /* optional f32 (1) */ };
enum { ADAMW_LR, ADAMW_BETA1, ADAMW_BETA2, ADAMW_EPS, ADAMW_WEIGHT_DECAY, ADAMW_BIAS1, ADAMW_BIAS2, ADAMW_GRAD_SCALE,
       ADAMW_MAX_NORM, ADAMW_ADAM_W, ADAMW_ZERO_GRAD };
enum { ABSMAX_Y, ABSMAX_X };
enum { SUM_SQUARES_Y, SUM_SQUARES_X, SUM_SQUARES_ABSMAX };
enum { NORM_FINISH_Y, NORM_FINISH_SUM, NORM_FINISH_ABSMAX };
#endif
