// permute: dims that stay together are merged first. Where the last dim stays last, runs are copied by the widest unit
// that divides them; else 32 x 32 tiles go through shared memory, so that reads and writes both follow memory's order.
#include "../../ops/layout.h"
#include "device/launch.h"

namespace zs::cuda {
namespace {

// Dims of y, innermost first, with the steps of each in x and y, in elements.
struct Dims {
  int count;
  int64_t size[ZS_MAX_DIMS], x_step[ZS_MAX_DIMS], y_step[ZS_MAX_DIMS];
};

Dims dims_of(const zs_call *call) {
  const zs_tensor &x = call->tensors[PERMUTE_X], &y = call->tensors[PERMUTE_Y];
  int64_t source[ZS_MAX_DIMS], step = 1;
  for (int d = x.ndim - 1; d >= 0; d--) {
    source[d] = step;
    step *= x.dims[d];
  }
  Dims dims{};
  int64_t y_step = 1;
  for (int d = y.ndim - 1; d >= 0; d--) {
    const int64_t x_step = source[integer(call, d)], size = y.dims[d];
    const int last = dims.count - 1;
    if (size == 1) continue;
    if (last >= 0 && x_step == dims.x_step[last] * dims.size[last]) {
      dims.size[last] *= size;
    } else {
      dims.size[dims.count] = size, dims.x_step[dims.count] = x_step, dims.y_step[dims.count] = y_step;
      dims.count++;
    }
    y_step *= size;
  }
  return dims;
}

// Where number i of the dims from `first` on lies in x and y.
struct Places { int64_t x, y; };
__device__ inline Places places_of(const Dims &dims, int first, int64_t i) {
  Places at{0, 0};
#pragma unroll
  for (int d = 0; d < ZS_MAX_DIMS; d++) {
    if (d < first || d >= dims.count) continue;
    const int64_t next = i / dims.size[d], here = i - next * dims.size[d];
    at.x += here * dims.x_step[d];
    at.y += here * dims.y_step[d];
    i = next;
  }
  return at;
}

template <class Unit> struct Runs {  // dims in units; the innermost is the run
  Unit *y;
  const Unit *x;
  Dims dims;
  __device__ void operator()(int64_t i, int) const { y[i] = x[places_of(dims, 0, i).x]; }
};

// dims[0] and dims[1]: those that lie together in y and in x. grid: tiles along both, then the other dims in turns.
constexpr int kTile = 32;
template <class Unit>
__global__ void __launch_bounds__(kThreads) tiles_kernel(Unit *y, const Unit *x, Dims dims, int64_t along_y, int64_t along_x, int64_t others) {
  __shared__ Unit tile[kTile][kTile + 1];
  const int lane = static_cast<int>(threadIdx.x) % kTile, line = static_cast<int>(threadIdx.x) / kTile;
  const int64_t tiles = along_y * along_x;
  for (int64_t b = blockIdx.x; b < tiles * others; b += gridDim.x) {
    const int64_t other = b / tiles, a0 = b % along_y * kTile, a1 = b % tiles / along_y * kTile;
    const Places at = places_of(dims, 2, other);
    for (int i = line; i < kTile; i += kThreads / kTile)
      if (a0 + i < dims.size[0] && a1 + lane < dims.size[1])
        tile[i][lane] = x[at.x + (a0 + i) * dims.x_step[0] + (a1 + lane) * dims.x_step[1]];
    __syncthreads();
    for (int i = line; i < kTile; i += kThreads / kTile)
      if (a0 + lane < dims.size[0] && a1 + i < dims.size[1])
        y[at.y + (a0 + lane) * dims.y_step[0] + (a1 + i) * dims.y_step[1]] = tile[lane][i];
    __syncthreads();
  }
}

template <class Unit> int32_t runs(zs_call *call, Dims dims, int64_t count, int64_t size) {
  const int64_t factor = static_cast<int64_t>(sizeof(Unit)) / size;
  dims.size[0] /= factor;
  for (int d = 1; d < dims.count; d++) dims.x_step[d] /= factor;
  return run_packs<1>(call, count / factor, Runs<Unit>{data<Unit>(call, PERMUTE_Y), data<Unit>(call, PERMUTE_X), dims});
}

template <class Unit> int32_t tiles(zs_call *call, Dims dims, int64_t count) {
  int inner = 1;
  while (inner < dims.count - 1 && dims.x_step[inner] != 1) inner++;
  std::swap(dims.size[1], dims.size[inner]);
  std::swap(dims.x_step[1], dims.x_step[inner]);
  std::swap(dims.y_step[1], dims.y_step[inner]);
  const int64_t along_y = ceil_div(dims.size[0], kTile), along_x = ceil_div(dims.size[1], kTile);
  const int64_t others = count / dims.size[0] / dims.size[1];
  return launch(call, tiles_kernel<Unit>, resident(call, along_y * along_x * others), kThreads, 0, data<Unit>(call, PERMUTE_Y),
                data<Unit>(call, PERMUTE_X), dims, along_y, along_x, others);
}

}  // namespace

int32_t permute(zs_call *call) {
  const int64_t count = count_of(call, PERMUTE_Y), size = bytes_of(dtype_of(call, PERMUTE_Y));
  if (count == 0) return ZS_OK;
  Dims dims = dims_of(call);
  if (dims.count == 0) dims = {1, {1}, {1}, {1}};
  if (dims.x_step[0] != 1) {
    switch (size) {
      case 8: return tiles<uint64_t>(call, dims, count);
      case 4: return tiles<uint32_t>(call, dims, count);
      case 2: return tiles<uint16_t>(call, dims, count);
      default: return tiles<uint8_t>(call, dims, count);
    }
  }
  uint64_t all = reinterpret_cast<uintptr_t>(call->tensors[PERMUTE_Y].data) | reinterpret_cast<uintptr_t>(call->tensors[PERMUTE_X].data) |
                 static_cast<uint64_t>(dims.size[0] * size);
  for (int d = 1; d < dims.count; d++) all |= static_cast<uint64_t>(dims.x_step[d] * size);
  if (all % 16 == 0) return runs<uint4>(call, dims, count, size);
  if (all % 8 == 0) return runs<uint2>(call, dims, count, size);
  if (all % 4 == 0) return runs<uint32_t>(call, dims, count, size);
  return all % 2 == 0 ? runs<uint16_t>(call, dims, count, size) : runs<uint8_t>(call, dims, count, size);
}

}  // namespace zs::cuda
