// N consecutive elements in registers as f32: loaded and stored by 16 bytes where the address allows it
// (V, chosen by the launcher for a whole tensor), else one by one.
#pragma once
#include <type_traits>

#include "types.h"

namespace zs::cuda {

template <int N> struct Floats { float at[N]; };

// What one thread takes at a time: 16 bytes of the narrower type.
template <class T> constexpr int kPack = 16 / sizeof(T);

namespace detail {
template <int Bytes> struct Words;
template <> struct Words<4> { using Type = uint32_t; };
template <> struct Words<8> { using Type = uint2; };
template <> struct Words<16> { using Type = uint4; };

// Bytes of one load for N elements of T.
template <int N, class T> constexpr int kLoad = N * sizeof(T) >= 16 ? 16 : N * sizeof(T);

template <int Bytes> struct Registers { uint32_t word[Bytes / 4]; };
__device__ inline Registers<4> split(uint32_t v) { return {{v}}; }
__device__ inline Registers<8> split(uint2 v) { return {{v.x, v.y}}; }
__device__ inline Registers<16> split(uint4 v) { return {{v.x, v.y, v.z, v.w}}; }
__device__ inline uint32_t join(Registers<4> r) { return r.word[0]; }
__device__ inline uint2 join(Registers<8> r) { return make_uint2(r.word[0], r.word[1]); }
__device__ inline uint4 join(Registers<16> r) { return make_uint4(r.word[0], r.word[1], r.word[2], r.word[3]); }
}  // namespace detail

template <int N, class T> __device__ inline Floats<N> load_aligned(const T *p) {
  constexpr int bytes = detail::kLoad<N, T>, each = bytes / sizeof(T);
  using Word = typename detail::Words<bytes>::Type;
  Floats<N> x;
#pragma unroll
  for (int i = 0; i < N / each; i++) {
    const auto r = detail::split(reinterpret_cast<const Word *>(p)[i]);
#pragma unroll
    for (int w = 0; w < bytes / 4; w++) {
      if constexpr (std::is_same_v<T, float>) {
        x.at[i * each + w] = __uint_as_float(r.word[w]);
      } else {
        x.at[i * each + 2 * w] = low_of<T>(r.word[w]);
        x.at[i * each + 2 * w + 1] = high_of<T>(r.word[w]);
      }
    }
  }
  return x;
}

template <int N, class T> __device__ inline void store_aligned(T *p, const Floats<N> &x) {
  constexpr int bytes = detail::kLoad<N, T>, each = bytes / sizeof(T);
  using Word = typename detail::Words<bytes>::Type;
#pragma unroll
  for (int i = 0; i < N / each; i++) {
    detail::Registers<bytes> r;
#pragma unroll
    for (int w = 0; w < bytes / 4; w++) {
      if constexpr (std::is_same_v<T, float>) r.word[w] = __float_as_uint(x.at[i * each + w]);
      else r.word[w] = pack_pair<T>(x.at[i * each + 2 * w], x.at[i * each + 2 * w + 1]);
    }
    reinterpret_cast<Word *>(p)[i] = detail::join(r);
  }
}

// The first n of N; the others read as `rest` and are not written.
template <bool V, int N, class T> __device__ inline Floats<N> load(const T *p, int n, float rest = 0) {
  if (V && n >= N) return load_aligned<N>(p);
  Floats<N> x;
#pragma unroll
  for (int i = 0; i < N; i++) x.at[i] = i < n ? to_float(p[i]) : rest;
  return x;
}
template <bool V, int N, class T> __device__ inline void store(T *p, const Floats<N> &x, int n) {
  if (V && n >= N) return store_aligned(p, x);
#pragma unroll
  for (int i = 0; i < N; i++)
    if (i < n) p[i] = from_float<T>(x.at[i]);
}

}  // namespace zs::cuda
