// What one thread of a swap file works with, and what it works on.
#pragma once
#include <cstdlib>
#include <mutex>
#include <new>

#include "swap_file.h"

namespace zs {

// A part of a range that is moved in one go: [offset, offset + bytes) of the file, or with direct I/O the pages
// [first, first + length) around it, through a buffer where the caller's memory is not those pages.
struct SwapFile::Block {
  int64_t offset;
  char *data;
  int64_t bytes;
  int64_t first;
  int64_t length;
  char *place;  // what the disk reads or writes: `data`, or a buffer
  bool buffered;
};

struct SwapFile::Lane {
  std::unique_ptr<Uring> ring;
  std::unique_ptr<char, void (*)(void *)> buffers{nullptr, std::free};
  std::vector<Block *> slots;  // blocks in flight, by request

  void reserve(int64_t bytes, int count) {
    void *memory = nullptr;
    if (buffers) return;
    if (posix_memalign(&memory, static_cast<size_t>(kDiskPage), static_cast<size_t>(bytes * count)) != 0)
      throw std::bad_alloc();
    buffers.reset(static_cast<char *>(memory));
  }
};

// One call of transfer(), worked on by all lanes.
struct SwapFile::Transfer {
  bool write;
  std::vector<Block> blocks;
  std::atomic<size_t> next{0};
  std::atomic<bool> stopped{false};
  std::mutex lock;
  std::unique_ptr<Error> error;  // the first; guarded by the lock

  Block *take() {
    if (stopped.load()) return nullptr;
    size_t index = next.fetch_add(1);
    return index < blocks.size() ? &blocks[index] : nullptr;
  }
  void fail(const Error &what) {
    std::lock_guard guard(lock);
    if (!error) error = std::make_unique<Error>(what);
    stopped.store(true);
  }
};

}  // namespace zs
