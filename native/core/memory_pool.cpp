// Memory of captured graphs: where each tensor of a graph lies is written into it, so that its memory is its own.
#include <algorithm>

#include "memory.h"

namespace zs {

void Memory::open_pool() {
  auto allocator = std::make_unique<Allocator>(source_, progress_);
  pool_ = allocator.get();
  arenas_.push_back(std::make_unique<Arena>(Arena{nullptr, std::move(allocator), true}));
  std::copy_n(peak_, kNumCategories, peak_before_);
  reset_peak();
}

Memory::Pool Memory::close_pool() {
  Pool pool{pool_, {}};
  pool_ = nullptr;
  for (int i = 0; i < kNumCategories; i++) {
    pool.extra[i] = peak_[i] - live_[i];
    peak_[i] = std::max(peak_[i], peak_before_[i]);
  }
  return pool;
}

void Memory::count_peak(const Pool &pool) {
  for (int i = 0; i < kNumCategories; i++) peak_[i] = std::max(peak_[i], live_[i] + pool.extra[i]);
}

void Memory::drop_pool(const Pool &pool) {
  for (auto &arena : arenas_)
    if (arena->allocator.get() == pool.allocator) arena->kept = false;
  drop_empty_arenas();
}

bool Memory::hold(Storage *storage) {
  if (!storage->block || storage->allocator == pool_) return false;
  storage->num_handles++;
  storage->num_graphs++;
  return true;
}

void Memory::let_go(Storage *storage) {
  storage->num_graphs--;
  if (--storage->num_handles == 0) release(storage);
}

}  // namespace zs
