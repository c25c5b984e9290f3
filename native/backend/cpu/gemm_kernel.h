// The inner loops of GEMM as templates of the vector's width; each gemm_<set>.cpp instantiates them once.
// Everything lies in an anonymous namespace: see vmath.h.
#pragma once
#include "../../ops/matmul.h"
#include "gemm.h"
#include "vmath.h"

namespace zs::cpu {
namespace {

// Transposes W x W: log2(W) rounds, each interleaving row i with row i + W/2.
template <int W> ZS_INLINE void transpose(vfloat<W> (&rows)[W]) {
#pragma GCC unroll 4
  for (int round = 1; round < W; round *= 2) {
    vfloat<W> next[W];
#pragma GCC unroll 16
    for (int i = 0; i < W / 2; i++) {
      next[2 * i] = Interleave<W>::low(rows[i], rows[i + W / 2]);
      next[2 * i + 1] = Interleave<W>::high(rows[i], rows[i + W / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) rows[i] = next[i];
  }
}

// Source lines run along k: W lines at a time are transposed. In a panel narrower than W stores run over into the
// next k's slots, which are written after.
template <int W, class T>
void pack_transposed(const T *source, int64_t row, int count, int64_t slots, int width, float *panel) {
  constexpr int64_t ahead = 256 / sizeof(T);  // so many short streams escape the hardware's prefetcher
  for (int64_t k = 0; k < slots; k += W) {
    int64_t left = slots - k < W ? slots - k : W;
    for (int j = 0; j < width; j += W) {
      vfloat<W> rows[W];
      if (left == W && j + W <= count) {
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) {
          const T *line = source + (j + i) * row + k;
          __builtin_prefetch(line + ahead);
          rows[i] = load<W>(line);
        }
      } else {
        for (int i = 0; i < W; i++) {
          const T *line = source + (j + i) * row + k;
          rows[i] = j + i >= count ? vfloat<W>{} : left == W ? load<W>(line) : load_some<W>(line, left);
        }
      }
      transpose<W>(rows);
      int keep = width - j < W ? width - j : W;
      for (int i = 0; i < left; i++) {
        if (keep == W || width < W) {
          store<W>(panel + (k + i) * width + j, rows[i]);
        } else {
          memcpy(panel + (k + i) * width + j, &rows[i], sizeof(float) * static_cast<size_t>(keep));
        }
      }
    }
  }
}

template <int W, class T>
void pack(const void *from, int64_t row, bool k_contiguous, int count, int64_t num_k, int width, float *panel) {
  const T *source = static_cast<const T *>(from);
  if (k_contiguous) return pack_transposed<W>(source, row, count, num_k, width, panel);
  for (int64_t k = 0; k < num_k; k++, source += row, panel += width) {
    int j = 0;
    for (; j + W <= count; j += W) store<W>(panel + j, load<W>(source + j));
    if constexpr (W >= 8) {
      constexpr int half = W / 2;  // a rest of more than half a vector: two halves that overlap
      if (count - j >= half) {
        store<half>(panel + j, load<half>(source + j));
        store<half>(panel + count - half, load<half>(source + count - half));
        j = count;
      }
    }
    for (; j < count; j++) panel[j] = to_float(source[j]);
    for (; j < width; j++) panel[j] = 0;
  }
}

constexpr int64_t run_length = 16;  // of K: measured, docs/log.md

// R rows by two vectors of sums, held in registers for a run of K; the runs' sums are added in the first-level cache,
// which costs little and keeps the error of a long sum near that of a short one.
template <int W, int R>
void tile_rows(int64_t slots, int width, const float *a, const float *b, float *c, int64_t c_row, bool add) {
  vfloat<W> totals[R][2];
  for (int64_t begin = 0; begin == 0 || begin < slots; begin += run_length) {
    vfloat<W> sums[R][2] = {};
    const int64_t end = slots < begin + run_length ? slots : begin + run_length;
    for (int64_t k = begin; k < end; k++, a += width, b += 2 * W) {
      vfloat<W> b0 = load<W>(b), b1 = load<W>(b + W);
#pragma GCC unroll 16
      for (int i = 0; i < R; i++) {
        vfloat<W> ai = splat<W>(a[i]);
        sums[i][0] = vfma<W>(ai, b0, sums[i][0]);
        sums[i][1] = vfma<W>(ai, b1, sums[i][1]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      totals[i][0] = begin ? totals[i][0] + sums[i][0] : sums[i][0];
      totals[i][1] = begin ? totals[i][1] + sums[i][1] : sums[i][1];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++, c += c_row) {
    if (add) totals[i][0] += load<W>(c), totals[i][1] += load<W>(c + W);
    store<W>(c, totals[i][0]);
    store<W>(c + W, totals[i][1]);
  }
}

template <int W, int MR, int R = MR>
void tile(int rows, int64_t slots, const float *a, const float *b, float *c, int64_t c_row, bool add) {
  if (rows == R) return tile_rows<W, R>(slots, MR, a, b, c, c_row, add);
  if constexpr (R > 1) tile<W, MR, R - 1>(rows, slots, a, b, c, c_row, add);
}

// b lies (N,K): dot products of M rows of x with two rows of b at a time.
template <int W, class T, int M>
void few_dots(int64_t n, int64_t k, const float *x, const T *b, int64_t b_row, float *sums, int64_t sums_row) {
  for (int64_t j = 0; j < n; j += 2) {
    const T *b0 = b + j * b_row, *b1 = j + 1 < n ? b0 + b_row : b0;
    vfloat<W> s0[M] = {}, s1[M] = {};
    int64_t l = 0;
    for (; l + W <= k; l += W) {
      vfloat<W> v0 = load<W>(b0 + l), v1 = load<W>(b1 + l);
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
        vfloat<W> xi = load<W>(x + i * k + l);
        s0[i] = vfma<W>(xi, v0, s0[i]);
        s1[i] = vfma<W>(xi, v1, s1[i]);
      }
    }
    for (int i = 0; i < M; i++) {
      float r0 = sum<W>(s0[i]), r1 = sum<W>(s1[i]);
      for (int64_t t = l; t < k; t++) r0 += x[i * k + t] * to_float(b0[t]), r1 += x[i * k + t] * to_float(b1[t]);
      sums[i * sums_row + j] = r0;
      if (j + 1 < n) sums[i * sums_row + j + 1] = r1;
    }
  }
}

// b lies (K,N): four rows of b are added to the sums at a time, which stay in the first-level cache.
template <int W, class T, int M>
void few_axpys(int64_t n, int64_t k, const float *x, const T *b, int64_t b_row, float *sums, int64_t sums_row) {
  for (int i = 0; i < M; i++) memset(sums + i * sums_row, 0, sizeof(float) * static_cast<size_t>(n));
  int64_t l = 0;
  for (; l + 4 <= k; l += 4, b += 4 * b_row) {
    int64_t j = 0;
    for (; j + W <= n; j += W) {
      vfloat<W> v0 = load<W>(b + j), v1 = load<W>(b + b_row + j);
      vfloat<W> v2 = load<W>(b + 2 * b_row + j), v3 = load<W>(b + 3 * b_row + j);
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
        const float *xi = x + i * k + l;
        vfloat<W> s = load<W>(sums + i * sums_row + j);
        s = vfma<W>(splat<W>(xi[0]), v0, s), s = vfma<W>(splat<W>(xi[1]), v1, s);
        s = vfma<W>(splat<W>(xi[2]), v2, s), s = vfma<W>(splat<W>(xi[3]), v3, s);
        store<W>(sums + i * sums_row + j, s);
      }
    }
    for (; j < n; j++) {
      for (int i = 0; i < M; i++) {
        const float *xi = x + i * k + l;
        float s = sums[i * sums_row + j];
        for (int t = 0; t < 4; t++) s += xi[t] * to_float(b[t * b_row + j]);
        sums[i * sums_row + j] = s;
      }
    }
  }
  for (; l < k; l++, b += b_row)
    for (int i = 0; i < M; i++)
      for (int64_t j = 0; j < n; j++) sums[i * sums_row + j] += x[i * k + l] * to_float(b[j]);
}

template <int W, class T, int M = 8>
void few_rows(int m, int64_t n, int64_t k, const float *x, const void *b, int64_t b_row, bool trans_b, float *sums,
              int64_t sums_row) {
  const T *matrix = static_cast<const T *>(b);
  if (m == M && trans_b) return few_dots<W, T, M>(n, k, x, matrix, b_row, sums, sums_row);
  if (m == M) return few_axpys<W, T, M>(n, k, x, matrix, b_row, sums, sums_row);
  if constexpr (M > 1) few_rows<W, T, M - 1>(m, n, k, x, b, b_row, trans_b, sums, sums_row);
}

// Y: dtype of y, pre and pre_in; B: of the bias.
template <int W, class Y, class B, int E> void finish_rows(const GemmFinish &f) {
  const B *bias = static_cast<const B *>(f.bias);
  for (int64_t i = 0; i < f.rows; i++) {
    const float *sums = f.sums + i * f.sums_row;
    Y *y = static_cast<Y *>(f.y) + i * f.row;
    Y *pre = f.pre ? static_cast<Y *>(f.pre) + i * f.row : nullptr;
    const Y *pre_in = static_cast<const Y *>(f.pre_in) + (f.pre_in ? i * f.row : 0);
    for (int64_t j = 0; j < f.cols; j += W) {
      int64_t n = f.cols - j < W ? f.cols - j : W;
      vfloat<W> v = take<W>(sums + j, n) * f.alpha;
      if (bias) v += take<W>(bias + j, n);
      if (pre) put<W>(pre + j, v, n);
      if constexpr (E == EPILOGUE_GELU_TANH) v = vgelu_tanh<W>(v);
      if constexpr (E == EPILOGUE_GELU_ERF) v = vgelu_erf<W>(v);
      if constexpr (E == EPILOGUE_DGELU_TANH) v *= vgelu_tanh_grad<W>(take<W>(pre_in + j, n));
      if constexpr (E == EPILOGUE_DGELU_ERF) v *= vgelu_erf_grad<W>(take<W>(pre_in + j, n));
      if (f.accumulate) v += take<W>(y + j, n);
      put<W>(y + j, v, n);
    }
  }
}

template <int W, class Y, class B> void finish(const GemmFinish &f) {
  switch (f.epilogue) {
    case EPILOGUE_GELU_TANH: return finish_rows<W, Y, B, EPILOGUE_GELU_TANH>(f);
    case EPILOGUE_GELU_ERF: return finish_rows<W, Y, B, EPILOGUE_GELU_ERF>(f);
    case EPILOGUE_DGELU_TANH: return finish_rows<W, Y, B, EPILOGUE_DGELU_TANH>(f);
    case EPILOGUE_DGELU_ERF: return finish_rows<W, Y, B, EPILOGUE_DGELU_ERF>(f);
    default: return finish_rows<W, Y, B, EPILOGUE_NONE>(f);
  }
}

template <int W, int MR, class T> constexpr GemmKernels gemm_table() {
  return {MR, 2 * W, 1, pack<W, T>, tile<W, MR>, few_rows<W, T>, finish<W, float, T>, finish<W, T, T>};
}

}  // namespace
}  // namespace zs::cpu
