// A rank's shared memory: an anonymous file (nothing appears in /dev/shm, nothing outlives the
// processes), huge and sparse, with an allocator on top. Where peers may not open files of this
// process through /proc, a named object in /dev/shm that connect() unlinks. Only the owner allocates.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace zs::shm {

class Arena {
 public:
  Arena(const std::string &job, int rank, size_t reserved);  // throws CommError
  ~Arena();
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  char *base() const { return base_; }
  size_t bytes() const { return bytes_; }
  int fd() const { return fd_; }
  const std::string &name() const { return name_; }  // empty: anonymous or unlinked
  bool named() const { return named_; }  // in /dev/shm, and bounded by it
  void unlink();

  // Page-aligned, zero-filled at first use only; NULL where no room is left.
  void *allocate(size_t bytes);
  void release(void *data, size_t bytes);
  std::string no_room(size_t bytes) const;  // for the message where allocate() found none: numbers and cure
  // Offset of [data, data + bytes), or -1 where it is not (wholly) inside.
  int64_t offset(const void *data, size_t bytes) const;

 private:
  void open_anonymous();
  void open_named(const std::string &job, int rank);
  void map();

  char *base_ = nullptr;
  size_t bytes_ = 0;
  int fd_ = -1;
  std::string name_;  // until it is unlinked
  bool named_ = false;
  std::mutex mutex_;
  std::map<size_t, size_t> free_;  // offset → bytes
};

// A peer's arena, mapped.
struct Mapping {
  char *base = nullptr;
  size_t bytes = 0;
};
Mapping map_peer(const std::string &path, bool named, size_t bytes);  // throws std::string: why not
void unmap(const Mapping &mapping);

}  // namespace zs::shm
