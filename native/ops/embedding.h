/* embedding_forward: y[r] (rows, cols) = table[ids[r] - vocab_start], or 0 where that is outside [0, vocab_rows). An id
 *   outside [0, vocab_full) gives ZS_BAD_ARGUMENT with its value.
 * embedding_backward: dtable (vocab_rows, cols) f32 += dy by ids, in order of r for each row (deterministic).
 * ids i32 (rows). */
#ifndef ZS_OPS_EMBEDDING_H
#define ZS_OPS_EMBEDDING_H
enum { EMBEDDING_Y, EMBEDDING_TABLE, EMBEDDING_IDS };
enum { EMBEDDING_DTABLE, EMBEDDING_BACKWARD_DY, EMBEDDING_BACKWARD_IDS };
enum { EMBEDDING_ROWS, EMBEDDING_COLS, EMBEDDING_VOCAB_START, EMBEDDING_VOCAB_ROWS, EMBEDDING_VOCAB_FULL /* forward only */ };
#endif
