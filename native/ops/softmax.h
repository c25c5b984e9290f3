/* softmax: y = softmax(x) over the last of (rows, cols), or log-softmax where log is set; backward from y.
 * classifier: cross entropy, in place. logits (rows, stride), the first V of each row count; targets i32 (rows).
 *   losses[r] = lse[r] - logits[r][target], 0 where target == ignore_index; lse (rows) f32 optional.
 *   write_gradient: logits become (softmax - onehot) * scale, 0 for ignored rows and beyond V.
 * f32, bf16, f16 with arithmetic in f32; losses f32. A target outside [0,V) gives ZS_BAD_ARGUMENT with its value. */
#ifndef ZS_OPS_SOFTMAX_H
#define ZS_OPS_SOFTMAX_H
enum { SOFTMAX_Y, SOFTMAX_X };                        /* scalars: rows, cols, log */
enum { SOFTMAX_DX, SOFTMAX_BACKWARD_DY, SOFTMAX_BACKWARD_Y }; /* scalars: rows, cols, log */
enum { CLASSIFIER_LOGITS, CLASSIFIER_LOSSES, CLASSIFIER_LSE /* optional */, CLASSIFIER_TARGETS };
enum { CLASSIFIER_ROWS, CLASSIFIER_V, CLASSIFIER_STRIDE, CLASSIFIER_IGNORE_INDEX, CLASSIFIER_WRITE_GRADIENT, CLASSIFIER_SCALE };
#endif
