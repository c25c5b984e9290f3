/* Reductions and moves of data.
 * reduce: x (outer, n, inner) -> y (outer, inner): y = scale * f over n (+ y where accumulate is set); sums in f32, in a
 *   fixed order. x f32, bf16, f16; y f32 or x's dtype. An empty n gives 0 for sum, -inf / +inf for max / min.
 * copy_2d: y[y_offset + r*y_row + c] = x[x_offset + r*x_row + c], r < rows, c < cols; same dtype, any.
 * permute: y = x with its dims reordered: y.dims[i] = x.dims[perm[i]]; scalars: perm[8]; same dtype, any.
 * gather: x (outer, n, inner), ids i32 (m) -> y (outer, m, inner) = x[:, ids, :]. scatter_add: y (outer, n, inner) f32 +=
 *   x (outer, m, inner) at ids, in order of m. An id outside [0, n) gives ZS_BAD_ARGUMENT with its value.
 * top_k: the k largest of each row of x (rows, cols), descending, ties by lower id: values (rows, k), ids i32 (rows, k). */
#ifndef ZS_OPS_LAYOUT_H
#define ZS_OPS_LAYOUT_H
enum { REDUCE_SUM, REDUCE_MAX, REDUCE_MIN };
enum { REDUCE_Y, REDUCE_X };
enum { REDUCE_OUTER, REDUCE_N, REDUCE_INNER, REDUCE_KIND, REDUCE_ACCUMULATE, REDUCE_SCALE };
enum { COPY_2D_Y, COPY_2D_X };
enum { COPY_2D_ROWS, COPY_2D_COLS, COPY_2D_Y_OFFSET, COPY_2D_Y_ROW, COPY_2D_X_OFFSET, COPY_2D_X_ROW };
enum { PERMUTE_Y, PERMUTE_X };
enum { GATHER_Y, GATHER_X, GATHER_IDS };             /* scalars: outer, n, inner, m */
enum { SCATTER_ADD_Y, SCATTER_ADD_X, SCATTER_ADD_IDS }; /* scalars: outer, n, inner, m */
enum { TOP_K_VALUES, TOP_K_IDS, TOP_K_X };           /* scalars: rows, cols, k */
#endif
