/* The optimizers: one pass over flat buffers of equal count. All of them:
 *   g = grad * grad_scale * min(1, max_norm / (norm * |grad_scale| + 1e-6)) (no clipping where norm is absent or max_norm 0)
 *   param and states f32; out (optional) gets param in bf16 or f16; grad f32, bf16 or f16, set to 0 where zero_grad.
 *   A norm that is not finite leaves everything undone, the zeroing too: who then asks which gradient it was still finds it.
 *   Elementwise: any cut gives the same bits.
 *   "decayed" is param * (1 - lr * weight_decay); where it is not named, g += weight_decay * param comes first.
 * adamw: m += (1-beta1)(g - m); v = beta2 v + (1-beta2) g^2; param = decayed - lr * (m/bias1) / (sqrt(v/bias2) + eps);
 *   adam_w 0: L2 instead of decay.
 * sgd: m (optional) = momentum m + (1-dampening) g; param -= lr * m, with nesterov lr * (g + momentum m), without m lr * g.
 * adagrad: sum += g^2; param -= lr * g / (sqrt(sum) + eps).
 * lion: param = decayed - lr * sign(m + (1-beta1)(g - m)); m += (1-beta2)(g - m). The sign of 0 is 0.
 * Two that need more than elements; `update` (f32) is 0 where the norm is not finite, and apply_update finishes:
 * lamb: m and v as adamw; update = (m/bias1) / (sqrt(v/bias2) + eps) + weight_decay * param; eps_inside: sqrt(v/bias2 + eps).
 * muon: m += (1-beta)(g - m); update = nesterov ? g + beta (m - g) : m.
 * apply_update: param = decayed - lr * ratio * update, out = param; nothing where norm is given and not finite.
 *   ratio: param_norm / update_norm in [min, max], 1 where one of the two is 0 or absent.
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
enum { SGD_PARAM, SGD_M /* optional */, SGD_OUT /* optional */, SGD_GRAD, SGD_NORM /* optional f32 (1) */ };
enum { SGD_LR, SGD_MOMENTUM, SGD_DAMPENING, SGD_WEIGHT_DECAY, SGD_NESTEROV, SGD_GRAD_SCALE, SGD_MAX_NORM, SGD_ZERO_GRAD };
enum { ADAGRAD_PARAM, ADAGRAD_SUM, ADAGRAD_OUT /* optional */, ADAGRAD_GRAD, ADAGRAD_NORM /* optional f32 (1) */ };
enum { ADAGRAD_LR, ADAGRAD_EPS, ADAGRAD_WEIGHT_DECAY, ADAGRAD_GRAD_SCALE, ADAGRAD_MAX_NORM, ADAGRAD_ZERO_GRAD };
enum { LION_PARAM, LION_M, LION_OUT /* optional */, LION_GRAD, LION_NORM /* optional f32 (1) */ };
enum { LION_LR, LION_BETA1, LION_BETA2, LION_WEIGHT_DECAY, LION_GRAD_SCALE, LION_MAX_NORM, LION_ZERO_GRAD };
enum { LAMB_M, LAMB_V, LAMB_UPDATE, LAMB_GRAD, LAMB_PARAM, LAMB_NORM /* optional f32 (1) */ };
enum { LAMB_BETA1, LAMB_BETA2, LAMB_EPS, LAMB_WEIGHT_DECAY, LAMB_BIAS1, LAMB_BIAS2, LAMB_EPS_INSIDE, LAMB_GRAD_SCALE,
       LAMB_MAX_NORM, LAMB_ZERO_GRAD };
enum { MUON_M, MUON_UPDATE, MUON_GRAD, MUON_NORM /* optional f32 (1) */ };
enum { MUON_BETA, MUON_NESTEROV, MUON_GRAD_SCALE, MUON_MAX_NORM, MUON_ZERO_GRAD };
enum { APPLY_UPDATE_PARAM, APPLY_UPDATE_OUT /* optional */, APPLY_UPDATE_UPDATE, APPLY_UPDATE_PARAM_NORM /* optional f32 (1) */,
       APPLY_UPDATE_UPDATE_NORM /* optional f32 (1) */, APPLY_UPDATE_NORM /* optional f32 (1) */ };
enum { APPLY_UPDATE_LR, APPLY_UPDATE_WEIGHT_DECAY, APPLY_UPDATE_MIN, APPLY_UPDATE_MAX };
enum { ABSMAX_Y, ABSMAX_X };
enum { SUM_SQUARES_Y, SUM_SQUARES_X, SUM_SQUARES_ABSMAX };
enum { NORM_FINISH_Y, NORM_FINISH_SUM, NORM_FINISH_ABSMAX };
#endif
