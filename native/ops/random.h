/* Random numbers are a pure function: Philox 4x32-10 with key = seed (64 bits) and counter = (index >> 2 (64 bits),
 * site); the word is number index & 3 of the block. uniform = ((word >> 9) + 0.5) * 2^-23:
 * exact in f32, never 0 or 1; normal: elements 2j, 2j+1 are the Box-Muller pair (cos, sin) of words 2j, 2j+1.
 * dropout: y = x kept ? x/(1-p) : 0, kept where uniform >= p. Element (r,c) of x (rows, cols) has the index
 *   (row_offset + r) * full_cols + col_offset + c, from column `split` on second_offset + c - split, so any cut of a
 *   tensor, in one piece or two, draws what the whole would. Its own backward.
 * random_fill: y[i] = a + b * normal(offset + i), or uniform in [a, b). seed, site, offset: integers up to 2^53. */
#ifndef ZS_OPS_RANDOM_H
#define ZS_OPS_RANDOM_H
enum { DROPOUT_Y, DROPOUT_X };
enum { DROPOUT_P, DROPOUT_SEED, DROPOUT_SITE, DROPOUT_ROWS, DROPOUT_COLS, DROPOUT_FULL_COLS, DROPOUT_ROW_OFFSET, DROPOUT_COL_OFFSET,
       DROPOUT_SPLIT, DROPOUT_SECOND_OFFSET };
enum { RANDOM_FILL_Y };
enum { RANDOM_FILL_KIND /* 0 uniform, 1 normal */, RANDOM_FILL_A, RANDOM_FILL_B, RANDOM_FILL_SEED, RANDOM_FILL_SITE, RANDOM_FILL_OFFSET };
#endif
