// Host memory for the allocator's segments. Large ones are aligned for huge pages and ask for them:
// a training step touches all of its memory, and small pages cost up to half of its time in faults.
#include "backend.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

namespace zs::cpu {

namespace {

constexpr size_t kHuge = size_t{2} << 20;

void *allocate(size_t bytes) {
  if (bytes < kHuge) return aligned_alloc(64, (bytes + 63) / 64 * 64);
  size_t mapped = bytes + kHuge;
  if (mapped < bytes) return nullptr;
  void *raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char *begin = static_cast<char *>(raw);
  size_t before = (kHuge - reinterpret_cast<uintptr_t>(begin) % kHuge) % kHuge;
  if (before > 0) munmap(begin, before);
  if (kHuge - before > 0) munmap(begin + before + bytes, kHuge - before);
  madvise(begin + before, bytes, MADV_HUGEPAGE);  // a wish; refused, small pages do
  return begin + before;
}

void release(void *data, size_t bytes) {
  if (bytes < kHuge) free(data);
  else munmap(data, bytes);
}

}  // namespace

const zs_backend &backend() {
  static const zs_backend table = [] {
    zs_backend cpu = {};
    cpu.abi = ZS_BACKEND_ABI;
    cpu.struct_size = sizeof(zs_backend);
    cpu.name = "cpu";
    cpu.allocate = allocate;
    cpu.release = release;
    cpu.kernels = kernels;
    cpu.num_kernels = ZS_OP_COUNT;
    cpu.host_memory = 1;
    return cpu;
  }();
  return table;
}

}  // namespace zs::cpu
