// Tensor-core instructions of sm_80 and newer on 16-bit operands, with a plain meaning on the host for the tests.
// Layouts (PTX ISA, mma.m16n8k16): lane = 4 g + t. a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), two elements
// each; b: (k 2t, n g), (k 2t + 8, n g); c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#pragma once
#include "types.h"

namespace zs::cuda {

struct Fragment { uint32_t at[4]; };  // four 8 x 8 matrices of 16-bit values, or the operand a

#ifdef ZS_CUDA_SHIM

// Lane 8 i + r gives the address of row r of matrix i; lane l gets elements (l / 4, 2 (l % 4)) and the one beside it.
inline Fragment load_matrices(const void *row) {
  Fragment f;
  const char *slots = shim::exchange(&row, sizeof row);
  for (unsigned i = 0; i < 4; i++) {
    const char *from;
    memcpy(&from, slots + (8 * i + shim::lane() / 4) * shim::kSlot, sizeof from);
    memcpy(&f.at[i], from + 4 * (shim::lane() % 4), 4);
  }
  return f;
}
// Transposed: elements (2 (l % 4), l / 4) and the one below it.
inline Fragment load_transposed(const void *row) {
  Fragment f;
  const char *slots = shim::exchange(&row, sizeof row);
  for (unsigned i = 0; i < 4; i++) {
    uint16_t pair[2];
    for (unsigned k = 0; k < 2; k++) {
      const char *from;
      memcpy(&from, slots + (8 * i + 2 * (shim::lane() % 4) + k) * shim::kSlot, sizeof from);
      memcpy(&pair[k], from + 2 * (shim::lane() / 4), 2);
    }
    memcpy(&f.at[i], pair, 4);
  }
  return f;
}

template <class T> void multiply(float (&c)[4], const Fragment &a, uint32_t b0, uint32_t b1) {
  const unsigned g = shim::lane() / 4, t = shim::lane() % 4;
  const uint32_t b[2] = {b0, b1};
  uint32_t rows[4][4], cols[2][4][2];  // a's registers of this row's lanes; b's of both columns' lanes
  const char *slots = shim::exchange(&a, sizeof a);
  for (unsigned i = 0; i < 4; i++) memcpy(rows[i], slots + (4 * g + i) * shim::kSlot, 16);
  slots = shim::exchange(b, sizeof b);
  for (unsigned n = 0; n < 2; n++)
    for (unsigned i = 0; i < 4; i++) memcpy(cols[n][i], slots + (4 * (2 * t + n) + i) * shim::kSlot, 8);
  for (unsigned half = 0; half < 2; half++)      // k 0 to 7, k 8 to 15
    for (unsigned i = 0; i < 4; i++)             // the pair 2i, 2i + 1 of them
      for (unsigned n = 0; n < 2; n++)
        for (unsigned row = 0; row < 2; row++) {
          const uint32_t x = rows[i][2 * half + row], y = cols[n][i][half];
          c[2 * row + n] += low_of<T>(x) * low_of<T>(y) + high_of<T>(x) * high_of<T>(y);
        }
}

inline void copy_async(void *shared, const void *global, bool there) {
  if (there) memcpy(shared, global, 16);
  else memset(shared, 0, 16);
}
inline void commit_copies() {}
inline void wait_copies() {}

#else

__device__ inline uint32_t shared_address(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ inline Fragment load_matrices(const void *row) {
  Fragment f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f.at[0]), "=r"(f.at[1]), "=r"(f.at[2]), "=r"(f.at[3])
               : "r"(shared_address(row))
               : "memory");
  return f;
}
__device__ inline Fragment load_transposed(const void *row) {
  Fragment f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f.at[0]), "=r"(f.at[1]), "=r"(f.at[2]), "=r"(f.at[3])
               : "r"(shared_address(row))
               : "memory");
  return f;
}

template <class T> __device__ inline void multiply(float (&c)[4], const Fragment &a, uint32_t b0, uint32_t b1);
template <> __device__ inline void multiply<bf16>(float (&c)[4], const Fragment &a, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b0), "r"(b1));
}
template <> __device__ inline void multiply<f16>(float (&c)[4], const Fragment &a, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b0), "r"(b1));
}

// 16 bytes into shared memory without registers; zeros where there is nothing.
__device__ inline void copy_async(void *shared, const void *global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ inline void wait_copies() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

#endif

// Dynamic shared memory of the block.
#ifdef ZS_CUDA_SHIM
template <class T> T *dynamic_shared() { return reinterpret_cast<T *>(shim::shared_memory()); }
#else
extern __shared__ __align__(128) unsigned char zs_dynamic_shared[];
template <class T> __device__ inline T *dynamic_shared() { return reinterpret_cast<T *>(zs_dynamic_shared); }
#endif

}  // namespace zs::cuda
