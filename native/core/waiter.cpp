#include "waiter.h"

#include <algorithm>

namespace zs {

namespace {

constexpr size_t kLeast = 4096;  // of a block, which doubles from there

}  // namespace

Waiter::~Waiter() {
  stop();
  for (const Item &item : items_) device_.backend().event_release(item.event);
  items_.clear();  // which gives back what they took
  for (const Block &block : blocks_) device_.backend().host_release(block.data, block.bytes);
}

void Waiter::push(void *event, After after) {
  std::lock_guard guard(lock_);
  items_.push_back({event, std::move(after)});
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  moved_.notify_one();
}

void Waiter::stop() {
  {
    std::lock_guard guard(lock_);
    stop_ = true;
    moved_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

char *Waiter::take(size_t bytes) {
  std::lock_guard guard(lock_);
  for (Block &block : blocks_) {
    if (block.busy || block.bytes < bytes) continue;
    block.busy = true;
    return block.data;
  }
  size_t all = kLeast;
  while (all < bytes) all *= 2;
  char *data = static_cast<char *>(device_.backend().host_allocate(all));
  if (!data) throw Error{"OUT_OF_MEMORY", text("no pinned host memory of %zu bytes", all)};
  blocks_.push_back({data, all, true});
  return data;
}

void Waiter::give_back(char *data) {
  std::lock_guard guard(lock_);
  for (Block &block : blocks_)
    if (block.data == data) block.busy = false;
}

void Waiter::loop() {
  std::unique_lock guard(lock_);
  for (;;) {
    moved_.wait(guard, [this] { return stop_ || !items_.empty(); });
    if (stop_) return;
    {
      Item item = std::move(items_.front());  // ends without the lock: it may give memory back
      items_.pop_front();
      guard.unlock();
      wait(item);
    }
    guard.lock();
  }
}

void Waiter::wait(Item &item) {
  std::unique_ptr<Error> error;
  try {
    device_.wait_on_host(item.event);
  } catch (const Error &found) {
    error = std::make_unique<Error>(found);
  }
  device_.backend().event_release(item.event);
  {
    std::lock_guard guard(lock_);
    if (stop_) return;
  }
  item.after(error.get());
}

}  // namespace zs
