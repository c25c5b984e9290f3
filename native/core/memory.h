// Tensors as JavaScript sees them: a handle (slot and generation in one integer) names a shape on a
// storage; a storage lives as long as its handles. Counts bytes by category exactly, as asked for.
// Only the thread that queues work may call it.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "../backend/backend.h"
#include "../comm/group.h"
#include "allocator.h"
#include "dtype.h"
#include "error.h"

namespace zs {

struct Storage {
  Block *block = nullptr;  // nullptr: no bytes
  Allocator *allocator = nullptr;
  char *data = nullptr;
  int64_t bytes = 0;
  Hazards hazards;
  bool on_device = false;  // the host must not touch it
  int category = 0;
  int num_handles = 0;  // those of graphs included
  int num_graphs = 0;   // that work on its memory
  int num_windows = 0;  // as which the ranks of groups know it
  bool shared = false;  // in the group's arena, where there is room and while it is on the device
};

struct Tensor {
  uint32_t generation = 0;
  Storage *storage = nullptr;  // nullptr: the slot is free
  zs_tensor range{};           // what kernels get
  int64_t bytes() const { return range.count * kDtypeBytes[range.dtype]; }
};

struct Shape {
  int ndim = 0;
  int64_t dims[ZS_MAX_DIMS] = {};
  int64_t count = 1;
};

// [ndim, dims…] as a packet has them. Throws.
Shape read_shape(const double *packet);
int read_index(double value, int end, const char *what);  // an integer in [0, end); throws

class Memory {
 public:
  struct Stats {
    int64_t live[kNumCategories] = {};
    int64_t peak[kNumCategories] = {};
    int64_t reserved = 0;
    int64_t tensors = 0;
  };

  // `drain` returns when no stream uses any memory. On a device the category `host` is pinned host memory.
  Memory(const zs_backend &backend, const Progress *progress, std::function<void()> drain);
  ~Memory();

  // All throw Error. A handle is never 0.
  int64_t allocate(const Shape &shape, int dtype, int category, bool shared);
  int64_t view(int64_t handle, int64_t offset, int dtype, const Shape &shape);
  void free(int64_t handle);
  // Counts the storage, all views of it included, in another category. Where host and device memory
  // differ, would_move() says whether it has to go to the other; exchange() comes first then.
  void recategorize(int64_t handle, int category);
  bool would_move(int64_t handle, int category);
  // Gives the storage other memory, which it returns the old of: a block that goes to release_block() once what is
  // to be kept is copied.
  struct Old {
    Block *block;
    Allocator *allocator;
    Hazards hazards;
    char *data;
    bool on_device;
  };
  Old exchange(int64_t handle, int category);
  void release_old(const Old &old);
  Tensor &find(double handle);

  // A graph's memory: what is allocated on the device between open_pool() and close_pool() comes from an allocator of
  // its own, which nothing else uses until drop_pool(); what is alive then stays. close_pool() says by how much, by
  // category, the peak in between was above what is alive at its end; count_peak() counts as much once more.
  struct Pool {
    Allocator *allocator = nullptr;
    int64_t extra[kNumCategories] = {};
  };
  void open_pool();
  Pool close_pool();
  void count_peak(const Pool &pool);
  void drop_pool(const Pool &pool);
  // Keeps the memory of a storage where it is, whoever frees it. False: it is the open pool's own.
  bool hold(Storage *storage);
  void let_go(Storage *storage);

  void set_limit(int64_t bytes) { limit_ = bytes; }  // of all live bytes; 0: none
  // Shared allocations come from this group's arena (nullptr: from normal memory). An arena that was
  // set before lives on, with its group, until its last storage is freed.
  void set_arena(std::shared_ptr<ProcessGroup> group);
  Stats stats() const;
  void reset_peak();

 private:
  struct Arena {  // the allocator, which needs the group, goes first
    std::shared_ptr<ProcessGroup> group;  // nullptr: a pool
    std::unique_ptr<Allocator> allocator;
    bool kept = false;  // of a pool: until it is dropped
  };
  Block *allocate_block(size_t bytes, int category, bool shared, Allocator **from);
  [[noreturn]] void out_of_memory(int64_t bytes, int category) const;
  int64_t new_handle(Storage *storage, const Shape &shape, int dtype, char *data);
  void release(Storage *storage);
  void drop_empty_arenas();
  void count(int category, int64_t bytes);

  const Progress *progress_;
  std::function<void()> drain_;
  const Allocator::Source source_;  // of the device's memory
  std::unique_ptr<Allocator> normal_;
  std::unique_ptr<Allocator> host_;  // of a device's runtime: pinned host memory
  std::vector<std::unique_ptr<Arena>> arenas_;
  Allocator *arena_ = nullptr;
  Allocator *pool_ = nullptr;  // the open one
  int64_t peak_before_[kNumCategories] = {};
  std::vector<Tensor> tensors_;
  std::vector<uint32_t> free_slots_;
  std::vector<std::unique_ptr<Storage[]>> storage_records_;
  std::vector<Storage *> free_storages_;
  int64_t live_[kNumCategories] = {};
  int64_t peak_[kNumCategories] = {};
  int64_t live_total_ = 0;  // of what the limit is about: on a device not the host's
  int64_t limit_ = 0;
};

}  // namespace zs
