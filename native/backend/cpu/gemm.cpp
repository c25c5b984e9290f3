// The driver of GEMM: cuts the work into tasks, packs, and walks tiles.
// The smaller matrix is packed once, by all threads; the larger one is cut in stripes, each packed by the task that
// needs it. Within a task blocks of K go in order, so that a panel of b stays in the first-level cache.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cpu.h"
#include "float16.h"
#include "gemm.h"

namespace zs::cpu {
namespace {

constexpr int64_t max_slots = 384;             // of K in one block: measured, docs/log.md
constexpr int64_t max_shared_bytes = 8 << 20;  // of the packed smaller matrix
constexpr int64_t stripe_bytes = 192 << 10;    // of one block of the larger one

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A buffer that its thread keeps and reuses.
class Buffer {
 public:
  ~Buffer() { std::free(data_); }
  float *reserve(int64_t count) {
    if (count <= count_) return data_;
    std::free(data_);
    count_ = (count + 1023) / 1024 * 1024;
    data_ = static_cast<float *>(std::aligned_alloc(64, static_cast<size_t>(count_) * sizeof(float)));
    if (!data_) count_ = 0;
    return data_;
  }

 private:
  float *data_ = nullptr;
  int64_t count_ = 0;
};
thread_local Buffer shared_buffer, stripe_buffer, other_buffer, sums_buffer, partial_buffer, tile_buffer;

// One of the two matrices as lines (rows of a, columns of b) by K, cut in panels of `width` lines.
struct Side {
  const char *data;
  int64_t row, lines;
  bool k_contiguous;
  int width;
};

// Panels of `lines` lines from `first`, one block of K.
struct Block {
  float *panels;
  int64_t panel_size;  // floats from panel to panel
};

class Gemm {
 public:
  explicit Gemm(const GemmProblem &problem) : p(problem), kernels(*problem.kernels) {
    num_blocks = std::max<int64_t>(1, ceil_div(p.k, max_slots * kernels.pair));
    block_k = ceil_div(ceil_div(p.k, num_blocks), kernels.pair) * kernels.pair;
    end_block = num_blocks;
    a = {static_cast<const char *>(p.a), p.a_row, p.m, !p.trans_a, kernels.mr};
    b = {static_cast<const char *>(p.b), p.b_row, p.n, p.trans_b, kernels.nr};
    const GemmFinish &f = p.finish;
    plain = p.y_size == 4 && f.alpha == 1 && !f.bias && f.epilogue == 0 && !f.pre;
    in_place = p.y_size == 4 && (plain || !f.accumulate);
  }

  int64_t panel_size(int width) const { return slots(block_k) * width + 16; }
  int64_t slots(int64_t num_k) const { return ceil_div(num_k, kernels.pair); }
  int64_t k_of(int64_t block) const { return std::min(block_k, p.k - block * block_k); }

  void pack(const Side &side, int64_t first, int64_t block, float *panel) const {
    int64_t k = block * block_k;
    int64_t offset = side.k_contiguous ? first * side.row + k : k * side.row + first;
    int count = static_cast<int>(std::min<int64_t>(side.width, side.lines - first));
    kernels.pack(side.data + offset * p.a_size, side.row, side.k_contiguous, count, std::max<int64_t>(0, k_of(block)),
                 side.width, panel);
  }

  void pack_stripe(const Side &side, int64_t first, int64_t last, int64_t block, float *panels) const {
    for (int64_t line = first; line < last; line += side.width, panels += panel_size(side.width))
      pack(side, line, block, panels);
  }

  // Tiles of rows [m0, m1) and columns [n0, n1) for one block of K; both sides are packed from m0 and n0 on.
  void tiles(int64_t m0, int64_t m1, int64_t n0, int64_t n1, int64_t block, const float *pa, const float *pb,
             float *sums, float *edge) const {
    const int mr = kernels.mr, nr = kernels.nr;
    const bool last = block == num_blocks - 1;
    float *whole = in_place ? static_cast<float *>(p.finish.y) : partial;
    float *target = whole ? whole + m0 * p.n + n0 : sums;
    const int64_t target_row = whole ? p.n : n1 - n0;
    const bool add = block > 0 || (in_place && p.finish.accumulate);
    for (int64_t j = n0; j < n1; j += nr, pb += panel_size(nr)) {
      const float *panel_a = pa;
      const int64_t cols = std::min<int64_t>(nr, n1 - j);
      for (int64_t i = m0; i < m1; i += mr, panel_a += panel_size(mr)) {
        const int64_t rows = std::min<int64_t>(mr, m1 - i);
        float *c = target + (i - m0) * target_row + (j - n0);
        one_tile(rows, cols, slots(std::max<int64_t>(0, k_of(block))), panel_a, pb, c, target_row, add, edge);
        if (last && !plain) finish(i, j, rows, cols, c, target_row);
      }
    }
  }

  const GemmProblem &p;
  const GemmKernels &kernels;
  Side a, b;
  int64_t num_blocks, block_k;
  int64_t begin_block = 0, end_block;  // what one pass does
  float *partial = nullptr;            // (M,N) sums between passes, where y cannot hold them
  bool plain;                          // y = sums (+ y): tiles go straight to y
  bool in_place;                       // y itself holds the partial sums

 private:
  void one_tile(int64_t rows, int64_t cols, int64_t num_slots, const float *pa, const float *pb, float *c,
                int64_t c_row, bool add, float *edge) const {
    const int nr = kernels.nr;
    if (cols == nr) return kernels.tile(static_cast<int>(rows), num_slots, pa, pb, c, c_row, add);
    for (int64_t i = 0; add && i < rows; i++) memcpy(edge + i * nr, c + i * c_row, sizeof(float) * cols);
    kernels.tile(static_cast<int>(rows), num_slots, pa, pb, edge, nr, add);
    for (int64_t i = 0; i < rows; i++) memcpy(c + i * c_row, edge + i * nr, sizeof(float) * cols);
  }

  void finish(int64_t i, int64_t j, int64_t rows, int64_t cols, const float *sums, int64_t sums_row) const {
    finish_tile(p, i, j, rows, cols, sums, sums_row);
  }

 public:
  static void finish_tile(const GemmProblem &p, int64_t i, int64_t j, int64_t rows, int64_t cols, const float *sums,
                          int64_t sums_row) {
    GemmFinish f = p.finish;
    const int64_t at = i * p.n + j;
    f.sums = sums, f.sums_row = sums_row, f.rows = rows, f.cols = cols, f.row = p.n;
    f.y = static_cast<char *>(f.y) + at * p.y_size;
    if (f.pre) f.pre = static_cast<char *>(f.pre) + at * p.y_size;
    if (f.pre_in) f.pre_in = static_cast<const char *>(f.pre_in) + at * p.y_size;
    if (f.bias) f.bias = static_cast<const char *>(f.bias) + j * p.a_size;
    (p.y_size == 4 ? p.kernels->finish_f32 : p.kernels->finish_same)(f);
  }
};

float *zeroed(Buffer &buffer, int64_t count) {
  float *data = buffer.reserve(count);
  if (data) memset(data, 0, sizeof(float) * static_cast<size_t>(count));
  return data;
}

// One task: a stripe of the larger matrix against `lines` packed lines of the smaller.
bool run_task(const Gemm &g, bool stripe_n, int64_t s0, int64_t s1, int64_t c0, int64_t c1, const float *shared,
              int64_t block_stride) {
  const Side &large = stripe_n ? g.b : g.a;
  const int64_t num_panels = ceil_div(s1 - s0, large.width);
  float *stripe = stripe_buffer.reserve(num_panels * g.panel_size(large.width));
  const bool own_sums = !g.in_place && !g.partial;
  float *sums = own_sums ? sums_buffer.reserve((s1 - s0) * (c1 - c0)) : nullptr;
  float *edge = zeroed(tile_buffer, g.kernels.mr * g.kernels.nr);
  if (!stripe || !edge || (own_sums && !sums)) return false;
  for (int64_t block = g.begin_block; block < g.end_block; block++) {
    g.pack_stripe(large, s0, s1, block, stripe);
    const float *small = shared + (block - g.begin_block) * block_stride;
    if (stripe_n) g.tiles(c0, c1, s0, s1, block, small, stripe, sums, edge);
    else g.tiles(s0, s1, c0, c1, block, stripe, small, sums, edge);
  }
  return true;
}

// All stripes of the larger matrix against lines [first, last) of the smaller one.
bool run_chunk(const zs_call *call, const Gemm &g, bool stripe_n, int64_t first, int64_t last) {
  const Side &small = stripe_n ? g.a : g.b, &large = stripe_n ? g.b : g.a;
  const int64_t num_panels = ceil_div(last - first, small.width), size = g.panel_size(small.width);
  const int64_t block_stride = num_panels * size, num_blocks = g.end_block - g.begin_block;
  float *shared = shared_buffer.reserve(num_blocks * block_stride);
  if (!shared) return false;
  parallel_for(call, num_panels * num_blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      g.pack(small, first + i % num_panels * small.width, g.begin_block + i / num_panels, shared + i * size);
  });

  const int64_t threads = static_cast<ThreadPool *>(call->context)->num_threads();
  const int64_t large_panels = ceil_div(large.lines, large.width);
  int64_t per_stripe = std::max<int64_t>(1, stripe_bytes / (4 * g.panel_size(large.width)));
  per_stripe = std::max<int64_t>(1, std::min(per_stripe, large_panels / (threads * 4)));
  const int64_t num_stripes = ceil_div(large_panels, per_stripe);
  const int64_t num_groups = std::clamp<int64_t>(ceil_div(2 * threads, num_stripes), 1, ceil_div(num_panels, 4));
  const int64_t per_group = ceil_div(num_panels, num_groups);
  std::atomic<bool> failed = false;
  parallel_for(call, num_stripes * num_groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t group = task % num_groups * per_group, s0 = task / num_groups * per_stripe * large.width;
      const int64_t c0 = first + group * small.width, c1 = std::min(last, c0 + per_group * small.width);
      const int64_t s1 = std::min(large.lines, s0 + per_stripe * large.width);
      if (c0 < c1 && !run_task(g, stripe_n, s0, s1, c0, c1, shared + group * size, block_stride)) failed = true;
    }
  });
  return !failed;
}


}  // namespace

// Where the smaller matrix does not fit into its share of the cache as a whole: passes over ranges of K where the sums
// are small, so that the larger one is still packed once; else over chunks of the smaller one's lines.
bool gemm(const zs_call *call, const GemmProblem &problem) {
  if (problem.m == 0 || problem.n == 0) return true;
  Gemm g(problem);
  const bool stripe_n = problem.n >= problem.m;
  const Side &small = stripe_n ? g.a : g.b;
  const int64_t block_bytes = 4 * g.slots(g.block_k) * ceil_div(small.lines, small.width) * small.width;
  const int64_t blocks = max_shared_bytes / std::max<int64_t>(1, block_bytes), sums = problem.m * problem.n;
  if (blocks >= 1 && (blocks >= g.num_blocks || sums * 4 <= max_shared_bytes)) {
    if (blocks < g.num_blocks && !g.in_place && !(g.partial = partial_buffer.reserve(sums))) return false;
    for (g.begin_block = 0; g.begin_block < g.num_blocks; g.begin_block = g.end_block) {
      g.end_block = std::min(g.num_blocks, g.begin_block + blocks);
      if (!run_chunk(call, g, stripe_n, 0, small.lines)) return false;
    }
    return true;
  }
  const int64_t line_bytes = 4 * g.num_blocks * g.slots(g.block_k);
  const int64_t fitting = max_shared_bytes / std::max<int64_t>(1, line_bytes) / small.width;
  const int64_t chunk = std::max<int64_t>(8, fitting) * small.width;
  for (int64_t first = 0; first < small.lines; first += chunk)
    if (!run_chunk(call, g, stripe_n, first, std::min(small.lines, first + chunk))) return false;
  return true;
}

bool gemm_batch(const zs_call *call, const GemmProblem &first, int64_t batch, int64_t a_step, int64_t b_step) {
  if (first.m == 0 || first.n == 0) return true;
  std::atomic<bool> failed = false;
  parallel_for(call, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const GemmProblem problem = gemm_item(first, i, a_step, b_step);
      const Gemm g(problem);
      const int64_t size = g.panel_size(g.a.width), stride = ceil_div(problem.m, g.a.width) * size;
      float *packed = other_buffer.reserve(stride * g.num_blocks);
      if (!packed) {
        failed = true;
        continue;
      }
      for (int64_t block = 0; block < g.num_blocks; block++)
        g.pack_stripe(g.a, 0, problem.m, block, packed + block * stride);
      if (!run_task(g, true, 0, problem.n, 0, problem.m, packed, stride)) failed = true;
    }
  });
  return !failed;
}

GemmProblem gemm_item(const GemmProblem &first, int64_t i, int64_t a_step, int64_t b_step) {
  GemmProblem problem = first;
  GemmFinish &f = problem.finish;
  const int64_t at = i * first.m * first.n * first.y_size;
  problem.a = static_cast<const char *>(first.a) + i * a_step * first.a_size;
  problem.b = static_cast<const char *>(first.b) + i * b_step * first.a_size;
  f.y = static_cast<char *>(f.y) + at;
  if (f.pre) f.pre = static_cast<char *>(f.pre) + at;
  if (f.pre_in) f.pre_in = static_cast<const char *>(f.pre_in) + at;
  return problem;
}

bool gemm_few_rows(const zs_call *call, const GemmProblem &p, int a_dtype) {
  constexpr int64_t block = 512;  // columns; 8 rows of sums are 16 KiB
  float *x = shared_buffer.reserve(std::max<int64_t>(1, p.m * p.k));
  if (!x) return false;
  for (int64_t i = 0; i < p.m; i++) {
    for (int64_t k = 0; k < p.k; k++) {
      const int64_t at = p.trans_a ? k * p.a_row + i : i * p.a_row + k;
      x[i * p.k + k] = a_dtype == ZS_F32    ? static_cast<const float *>(p.a)[at]
                       : a_dtype == ZS_BF16 ? to_float(static_cast<const bf16 *>(p.a)[at])
                                            : to_float(static_cast<const f16 *>(p.a)[at]);
    }
  }
  std::atomic<bool> failed = false;
  parallel_for(call, ceil_div(p.n, block), 1, [&](int64_t begin, int64_t end) {
    float *sums = sums_buffer.reserve(p.m * block);
    if (!sums) failed = true;
    for (int64_t i = begin; sums && i < end; i++) {
      const int64_t n0 = i * block, cols = std::min(block, p.n - n0);
      const char *b = static_cast<const char *>(p.b) + n0 * (p.trans_b ? p.b_row : 1) * p.a_size;
      p.kernels->few_rows(static_cast<int>(p.m), cols, p.k, x, b, p.b_row, p.trans_b, sums, block);
      Gemm::finish_tile(p, 0, n0, p.m, cols, sums, block);
    }
  });
  return !failed;
}

}  // namespace zs::cpu
