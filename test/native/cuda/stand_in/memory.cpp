#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace zs::stand_in {

namespace {

constexpr size_t kJunk = size_t{1} << 20;  // more would be slow to open and to close

struct Region {
  size_t bytes, room;  // room: of whole pages
  bool pinned;
};

// Never destroyed: streams run on while the process ends.
struct Memory {
  std::mutex running, lock;
  std::map<uintptr_t, Region> regions;
  size_t taken = 0;
  bool open = false;
};
Memory &memory() {
  static Memory *made = new Memory;
  return *made;
}

size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

const Region *find(const void *data, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(data);
  auto after = memory().regions.upper_bound(at);
  if (after == memory().regions.begin()) return nullptr;
  const auto &[begin, region] = *--after;
  return at + bytes <= begin + region.bytes ? &region : nullptr;
}

void protect(int how) {
  for (const auto &[begin, region] : memory().regions)
    if (!region.pinned) mprotect(reinterpret_cast<void *>(begin), region.room, how);
}

}  // namespace

size_t memory_limit() {
  static const size_t limit = [] {
    const char *said = getenv("ZEROSHARD_STAND_IN_MEMORY");
    return said ? static_cast<size_t>(strtoull(said, nullptr, 10)) : size_t{4} << 30;
  }();
  return limit;
}

size_t memory_taken() {
  std::lock_guard guard(memory().lock);
  return memory().taken;
}

void *take(size_t bytes, bool pinned) {
  const size_t room = (bytes + page()) / page() * page();
  std::lock_guard running(memory().running);
  std::lock_guard guard(memory().lock);
  if (!pinned && bytes > memory_limit() - memory().taken) return nullptr;
  void *made = mmap(nullptr, room + 2 * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED) return nullptr;
  char *data = static_cast<char *>(made) + page();
  mprotect(data, room, PROT_READ | PROT_WRITE);
  memset(data, 0xff, std::min(bytes, kJunk));  // NaN in every float type
  if (!pinned) {
    if (!memory().open) mprotect(data, room, PROT_NONE);
    memory().taken += bytes;
  }
  memory().regions[reinterpret_cast<uintptr_t>(data)] = {bytes, room, pinned};
  return data;
}

bool give_back(void *data, bool pinned) {
  std::lock_guard running(memory().running);
  std::lock_guard guard(memory().lock);
  auto found = memory().regions.find(reinterpret_cast<uintptr_t>(data));
  if (found == memory().regions.end() || found->second.pinned != pinned) return false;
  if (!pinned) memory().taken -= found->second.bytes;
  munmap(static_cast<char *>(data) - page(), found->second.room + 2 * page());
  memory().regions.erase(found);
  return true;
}

bool on_device(const void *data, size_t bytes) {
  std::lock_guard guard(memory().lock);
  const Region *region = find(data, bytes);
  return region && !region->pinned;
}

bool is_pinned(const void *data, size_t bytes) {
  std::lock_guard guard(memory().lock);
  const Region *region = find(data, bytes);
  return region && region->pinned;
}

Running::Running() {
  memory().running.lock();
  if (!memory().open) protect(PROT_READ | PROT_WRITE);
  memory().open = true;
}
Running::~Running() { memory().running.unlock(); }

void close_memory() {
  std::lock_guard running(memory().running);
  if (memory().open) protect(PROT_NONE);
  memory().open = false;
}

}  // namespace zs::stand_in
