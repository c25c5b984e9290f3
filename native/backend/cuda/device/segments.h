// Rows of x summed into rows of y by id, each in the order in which they come, without float atomics: the bits are the
// CPU's. Rows of one id are first gathered into a list: counted, given a range of it, put there (integer atomics: in
// any order). Then a block owns an id and some columns; it sorts the list, or, where that is long, goes through all
// ids in order, and adds row after row to y. Work is in proportion to the rows, not to the table.
#pragma once
#include "launch.h"
#include "reduce.h"
#include "vector.h"

namespace zs::cuda {

struct SegmentLists {
  int32_t *counts, *cursor;  // per id
  int32_t *present;          // ids that occur
  int32_t *list;             // rows, those of an id together
  int32_t *totals;           // ids that occur; rows placed
};

struct ClearLists {
  SegmentLists s;
  __device__ void operator()(int64_t i, int) const {
    s.counts[i] = 0;
    if (i == 0) s.totals[0] = s.totals[1] = 0;
  }
};

struct CountIds {
  SegmentLists s;
  const int32_t *ids;
  int64_t start, n;
  Report *report;  // where an id outside is an error
  int op;
  __device__ void operator()(int64_t i, int) const {
    const int64_t id = ids[i] - start;
    if (id >= 0 && id < n) {
      if (atomicAdd(s.counts + id, 1) == 0) s.present[atomicAdd(s.totals, 1)] = static_cast<int32_t>(id);
    } else if (report) {
      tell(report, op, ids[i], n);
    }
  }
};

struct GiveRanges {
  SegmentLists s;
  __device__ void operator()(int64_t i, int) const {
    if (i < s.totals[0]) s.cursor[s.present[i]] = atomicAdd(s.totals + 1, s.counts[s.present[i]]);
  }
};

struct PlaceRows {  // afterwards the cursor is the end of an id's range
  SegmentLists s;
  const int32_t *ids;
  int64_t start, n;
  __device__ void operator()(int64_t i, int) const {
    const int64_t id = ids[i] - start;
    if (id >= 0 && id < n) s.list[atomicAdd(s.cursor + id, 1)] = static_cast<int32_t>(i);
  }
};

constexpr int kSegmentThreads = 128, kSegmentPack = 4, kSorted = 256, kScan = 8;

template <class T, bool V> class SegmentSum {
 public:
  __device__ SegmentSum(float *y, const T *x, int64_t cols, int64_t column) : x_(x + column), cols_(cols) {
    left_ = cols - column < 0 ? 0 : cols - column < kSegmentPack ? static_cast<int>(cols - column) : kSegmentPack;
    y_ = y + column;
    total_ = load<V, kSegmentPack>(y_, left_);
  }
  // Eight rows are on their way at once; the sum goes on in order.
  __device__ void add(const int32_t *rows, int count) {
    int i = 0;
    for (; i + 8 <= count; i += 8) {
      Floats<kSegmentPack> v[8];
#pragma unroll
      for (int k = 0; k < 8; k++) v[k] = load<V, kSegmentPack>(x_ + rows[i + k] * cols_, left_);
#pragma unroll
      for (int k = 0; k < 8; k++) plus(v[k]);
    }
    for (; i < count; i++) plus(load<V, kSegmentPack>(x_ + rows[i] * cols_, left_));
  }
  __device__ void finish() { store<V>(y_, total_, left_); }

 private:
  __device__ void plus(const Floats<kSegmentPack> &v) {
#pragma unroll
    for (int j = 0; j < kSegmentPack; j++) total_.at[j] += v.at[j];
  }
  const T *x_;
  float *y_;
  int64_t cols_;
  int left_;
  Floats<kSegmentPack> total_;
};

// Blocks: slices of columns, times outer, times ids that may occur.
template <class T, bool V>
__global__ void __launch_bounds__(kSegmentThreads)
segment_kernel(float *y, const T *x, const int32_t *ids, SegmentLists s, int64_t start, int64_t n, int64_t rows, int64_t cols,
               int64_t slices, int64_t outer) {
  constexpr int most = kSegmentThreads * kScan;
  __shared__ int32_t unsorted[kSorted], in_order[most], warp_sums[32];
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32;
  const int64_t slice = blockIdx.x % slices, o = blockIdx.x / slices % outer, which = blockIdx.x / slices / outer;
  if (which >= s.totals[0]) return;
  const int32_t id = s.present[which], count = s.counts[id];
  SegmentSum<T, V> sum(y + (o * n + id) * cols, x + o * rows * cols, cols, (slice * kSegmentThreads + tid) * kSegmentPack);
  if (count <= kSorted) {
    const int32_t *list = s.list + s.cursor[id] - count;
    for (int i = tid; i < count; i += kSegmentThreads) unsorted[i] = list[i];
    __syncthreads();
    for (int i = tid; i < count; i += kSegmentThreads) {
      int before = 0;
      for (int j = 0; j < count; j++) before += unsorted[j] < unsorted[i];
      in_order[before] = unsorted[i];
    }
    __syncthreads();
    sum.add(in_order, count);
  } else {
    for (int64_t first = 0; first < rows; first += most) {
      // Each thread finds the id among kScan rows that follow each other; their places are the sum of what is before.
      const int64_t mine = first + tid * kScan;
      unsigned found = 0;
#pragma unroll
      for (int k = 0; k < kScan; k++)
        if (mine + k < rows && ids[mine + k] - start == id) found |= 1u << k;
      const int hits = __popc(found);
      int place = hits;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int before = __shfl_up_sync(0xffffffffu, place, step);
        if (lane >= step) place += before;
      }
      if (lane == 31) warp_sums[tid / 32] = place;
      __syncthreads();
      int total = 0;
      for (int w = 0; w < kSegmentThreads / 32; w++) {
        if (w < tid / 32) place += warp_sums[w];
        total += warp_sums[w];
      }
      place -= hits;
#pragma unroll
      for (int k = 0; k < kScan; k++)
        if (found >> k & 1) in_order[place++] = static_cast<int32_t>(mine + k);
      __syncthreads();
      sum.add(in_order, total);
      __syncthreads();
    }
  }
  sum.finish();
}

// y (outer, n, cols) f32 += x (outer, rows, cols) at ids - start; those outside [0, n) are left out, and told of as
// `op`'s where op >= 0.
template <class T>
int32_t sum_by_id(zs_call *call, float *y, const T *x, const int32_t *ids, int64_t outer, int64_t rows, int64_t cols, int64_t start,
                  int64_t n, bool wide, int op) {
  if (rows == 0 || n == 0) return ZS_OK;
  const int64_t most = std::min(rows, n);
  int32_t *memory = scratch<int32_t>(call, 2 * n + most + rows + 2);
  if (!memory) return ZS_NO_MEMORY;
  const SegmentLists s{memory, memory + n, memory + 2 * n, memory + 2 * n + most, memory + 2 * n + most + rows};
  Report *report = op >= 0 ? context_of(call)->report : nullptr;
  if (const int32_t bad = run_packs<1>(call, n, ClearLists{s})) return bad;
  if (const int32_t bad = run_packs<1>(call, rows, CountIds{s, ids, start, n, report, op})) return bad;
  if (cols == 0 || outer == 0) return ZS_OK;
  if (const int32_t bad = run_packs<1>(call, most, GiveRanges{s})) return bad;
  if (const int32_t bad = run_packs<1>(call, rows, PlaceRows{s, ids, start, n})) return bad;
  const int64_t slices = ceil_div(cols, kSegmentThreads * kSegmentPack);
  return by_flag(wide && cols % kPack<T> == 0, [&](auto v) {
    return launch(call, segment_kernel<T, v.value>, static_cast<unsigned>(most * slices * outer), kSegmentThreads, 0, y, x, ids, s,
                  start, n, rows, cols, slices, outer);
  });
}

}  // namespace zs::cuda
