// See arena.h.
#include "arena.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "../group.h"
#include "layout.h"

namespace zs::shm {
namespace {

constexpr size_t kGiB = size_t{1} << 30;
constexpr size_t kSmallest = size_t{256} << 20;
constexpr size_t kPunch = size_t{1} << 20;  // freed ranges from here on go back to the system

size_t round_up(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

std::string system_error(int code) { return std::strerror(code); }

// Whether another process of this user could open our files: /proc is there, and we are dumpable.
bool peers_can_open(int fd) {
  if (prctl(PR_GET_DUMPABLE) != 1) return false;
  const std::string path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd);
  const int probe = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (probe < 0) return false;
  close(probe);
  return true;
}

// Named objects of killed processes: their owners held them locked from birth until they were unlinked.
void remove_leftovers() {
  DIR *folder = opendir("/dev/shm");
  if (!folder) return;
  while (const dirent *entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.rfind("zeroshard-", 0) != 0) continue;
    const int fd = openat(dirfd(folder), entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) shm_unlink(("/" + name).c_str());
    close(fd);
  }
  closedir(folder);
}

void *map_shared(int fd, size_t bytes) {
  void *base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) return nullptr;
  madvise(base, bytes, MADV_HUGEPAGE);  // advice: refused is fine
  return base;
}

}  // namespace

Arena::Arena(const std::string &job, int rank, size_t reserved) {
  open_anonymous();
  if (fd_ < 0) open_named(job, rank);
  try {
    map();
    reserved = round_up(reserved);
    if (const int code = posix_fallocate(fd_, 0, static_cast<off_t>(reserved)); code != 0) {
      throw CommError{"OUT_OF_MEMORY", "[commCreate] shared memory for the control block: " + system_error(code) +
                                           "; " + no_room(reserved)};
    }
  } catch (...) {
    unlink();
    if (base_) munmap(base_, bytes_);
    close(fd_);
    throw;
  }
  free_[reserved] = bytes_ - reserved;
}

Arena::~Arena() {
  unlink();
  munmap(base_, bytes_);
  close(fd_);
}

void Arena::open_anonymous() {
  fd_ = memfd_create("zeroshard", MFD_CLOEXEC);
  if (fd_ < 0 || peers_can_open(fd_)) return;
  close(fd_);
  fd_ = -1;
}

void Arena::open_named(const std::string &job, int rank) {
  std::string name = "/zeroshard-" + job + "-" + std::to_string(rank);
  std::replace(name.begin() + 1, name.end(), '/', '_');
  if (name.size() > 200) name.resize(200);
  remove_leftovers();
  struct stat facts = {};
  do {  // between the two calls another process may have taken it for a leftover: then once more
    if (fd_ >= 0) close(fd_);
    fd_ = shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd_ < 0) {
      throw CommError{"RENDEZVOUS", "[commCreate] /dev/shm" + name + ": " + system_error(errno)};
    }
    flock(fd_, LOCK_EX);
    fstat(fd_, &facts);
  } while (facts.st_nlink == 0);
  name_ = name;
  named_ = true;
}

// Asks for as much as the machine's memory (64 GiB at least): address space, not memory.
void Arena::map() {
  const size_t physical =
      static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  int code = 0;
  for (bytes_ = std::max(64 * kGiB, physical / kGiB * kGiB); bytes_ >= kSmallest; bytes_ /= 2) {
    bytes_ = round_up(bytes_);
    if (ftruncate(fd_, static_cast<off_t>(bytes_)) == 0) base_ = static_cast<char *>(map_shared(fd_, bytes_));
    if (base_) return;
    code = errno;
  }
  throw CommError{"OUT_OF_MEMORY", "[commCreate] no address space for 256 MiB of shared memory: " +
                                       system_error(code)};
}

void Arena::unlink() {
  if (!name_.empty()) shm_unlink(name_.c_str());
  name_.clear();
}

std::string Arena::no_room(size_t bytes) const {
  struct statvfs at = {};
  fstatvfs(fd_, &at);
  const std::string free = named_ ? ", free in /dev/shm " + std::to_string(at.f_bavail * at.f_frsize >> 10) + " KiB" : "";
  return "needs " + std::to_string((bytes + 1023) >> 10) + " KiB of shared memory" + free +
         (named_ ? "; enlarge /dev/shm (in a container: --shm-size) or empty it" : "; free memory, or use less");
}

void *Arena::allocate(size_t bytes) {
  if (bytes > bytes_) return nullptr;
  bytes = std::max(round_up(bytes), kPage);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto range =
      std::find_if(free_.begin(), free_.end(), [&](const auto &r) { return r.second >= bytes; });
  if (range == free_.end()) return nullptr;
  const auto [offset, size] = *range;
  // A named object is bounded by /dev/shm: ask now, as touching a page too many would be SIGBUS.
  if (named_ && posix_fallocate(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes)) != 0) {
    return nullptr;
  }
  free_.erase(range);
  if (size > bytes) free_[offset + bytes] = size - bytes;
  return base_ + offset;
}

void Arena::release(void *data, size_t bytes) {
  if (!data) return;
  bytes = std::max(round_up(bytes), kPage);
  size_t begin = static_cast<size_t>(static_cast<char *>(data) - base_);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (bytes >= kPunch) {
    fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
              static_cast<off_t>(bytes));
  }
  auto next = free_.lower_bound(begin);
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == begin) {
      begin = before->first;
      bytes += before->second;
      free_.erase(before);
    }
  }
  if (next != free_.end() && begin + bytes == next->first) {
    bytes += next->second;
    free_.erase(next);
  }
  free_[begin] = bytes;
}

int64_t Arena::offset(const void *data, size_t bytes) const {
  const auto at = reinterpret_cast<uintptr_t>(data), base = reinterpret_cast<uintptr_t>(base_);
  if (at < base || at - base > bytes_ || bytes > bytes_ - (at - base)) return -1;
  return static_cast<int64_t>(at - base);
}

Mapping map_peer(const std::string &path, bool named, size_t bytes) {
  const int fd = named ? shm_open(path.c_str(), O_RDWR | O_CLOEXEC, 0)
                       : open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw "open " + path + ": " + system_error(errno);
  struct stat facts = {};
  fstat(fd, &facts);
  const bool whole = static_cast<size_t>(facts.st_size) == bytes && bytes >= sizeof(Control);
  void *base = whole ? map_shared(fd, bytes) : nullptr;
  const int code = errno;
  close(fd);
  if (!whole) throw path + " has " + std::to_string(facts.st_size) + " bytes, not " + std::to_string(bytes);
  if (!base) throw "map " + path + ": " + system_error(code);
  return {static_cast<char *>(base), bytes};
}

void unmap(const Mapping &mapping) {
  if (mapping.base) munmap(mapping.base, mapping.bytes);
}

}  // namespace zs::shm
