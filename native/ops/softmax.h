/* softmax: y = softmax(x) over the last of (rows, cols), or log-softmax where log is set; backward from y.
 * classifier: cross entropy, in place. logits (rows, stride), the first V of each row count; targets i32 (rows).
 *   losses[r] = lse[r] - logits[r][target], 0 where target == ignore_index; lse (rows) f32 optional.
 *   write_gradient: logits become (softmax - onehot) * scale, 0 for ignored rows and beyond V.
 * classifier_part, classifier_merge: the same where each part (rank) has columns [vocab_start, vocab_start + V) of
 *   vocab_full. part: stats (rows, 3) f32 of logits (rows, V) = maximum, sum of e^(x - maximum), the target's logit
 *   (-inf where another part has it, or the row is ignored). merge: from the stats of all parts (parts, rows, 3) the
 *   losses and, where write_gradient is set, (softmax - onehot) * scale over the logits of this part. V may be 0.
 * f32, bf16, f16 with arithmetic in f32; losses f32. A target outside the vocabulary gives ZS_BAD_ARGUMENT with its value. */
#ifndef ZS_OPS_SOFTMAX_H
#define ZS_OPS_SOFTMAX_H
enum { SOFTMAX_Y, SOFTMAX_X };                        /* scalars: rows, cols, log */
enum { SOFTMAX_DX, SOFTMAX_BACKWARD_DY, SOFTMAX_BACKWARD_Y }; /* scalars: rows, cols, log */
enum { CLASSIFIER_LOGITS, CLASSIFIER_LOSSES, CLASSIFIER_LSE /* optional */, CLASSIFIER_TARGETS };
enum { CLASSIFIER_ROWS, CLASSIFIER_V, CLASSIFIER_STRIDE, CLASSIFIER_IGNORE_INDEX, CLASSIFIER_WRITE_GRADIENT, CLASSIFIER_SCALE };
enum { CLASSIFIER_PART_STATS, CLASSIFIER_PART_LOGITS, CLASSIFIER_PART_TARGETS };
enum { CLASSIFIER_PART_ROWS, CLASSIFIER_PART_V, CLASSIFIER_PART_IGNORE_INDEX, CLASSIFIER_PART_VOCAB_START,
       CLASSIFIER_PART_VOCAB_FULL };
enum { CLASSIFIER_MERGE_LOGITS, CLASSIFIER_MERGE_LOSSES, CLASSIFIER_MERGE_TARGETS, CLASSIFIER_MERGE_STATS };
enum { CLASSIFIER_MERGE_ROWS, CLASSIFIER_MERGE_V, CLASSIFIER_MERGE_IGNORE_INDEX, CLASSIFIER_MERGE_VOCAB_START,
       CLASSIFIER_MERGE_PARTS, CLASSIFIER_MERGE_WRITE_GRADIENT, CLASSIFIER_MERGE_SCALE };
#endif
