// Opening: the file, its space, and what moves its blocks.
#include "swap_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lane.h"

namespace zs {

namespace {

constexpr int kMostThreads = 16;

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

std::string folder_of(const std::string &path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

const char *cure_of_open(int error) {
  switch (error) {
    case ENOENT: return "there is no such folder; create it, on the disk that is meant";
    case ENOTDIR: return "it is not a folder; name one";
    case EACCES:
    case EPERM: return "this user may not write there; change the folder's owner or mode, or name another";
    case EROFS: return "it is read-only; name another folder";
    case ENOSPC:
    case EDQUOT: return "the disk is full; free some of it, or name another folder";
    default: return "name another folder";
  }
}

}  // namespace

SwapFile::SwapFile(const std::string &path, int64_t bytes, const SwapOptions &options)
    : path_(path), folder_(folder_of(path)), bytes_(round_up(bytes, kDiskPage)), options_(options) {
  if (bytes < 0 || options.block_size < kDiskPage || options.queue_depth < 1 || options.threads < 1)
    throw Error{"ARGUMENT", text("a swap file of %lld bytes with block_size %lld, queue_depth %d and %d threads; "
                                 "block_size must be 4096 or more, the others positive",
                                 static_cast<long long>(bytes), static_cast<long long>(options.block_size),
                                 options.queue_depth, options.threads)};
  open_file();
  try {
    take_space();
    choose_engine();
  } catch (...) {
    close(fd_);
    throw;
  }
}

SwapFile::~SwapFile() {
  crew_.reset();
  lanes_.clear();
  close(fd_);
}

// Without a name where the file system can, else with one that is taken away at once.
void SwapFile::open_file() {
  auto attempt = [this](int more) {
    int flags = O_RDWR | O_CLOEXEC | more;
    fd_ = open(folder_.c_str(), flags | O_TMPFILE, 0600);
    if (fd_ >= 0) return true;
    fd_ = open(path_.c_str(), flags | O_CREAT | O_EXCL, 0600);
    int error = errno;
    if (fd_ >= 0 || error == EINVAL) unlink(path_.c_str());  // some create the file before they refuse direct I/O
    errno = error;
    return fd_ >= 0;
  };
  direct_ = options_.allow_direct && attempt(O_DIRECT);
  if (direct_) return;
  if (options_.allow_direct && errno == EINVAL)
    add_note("this file system has no direct I/O: reads and writes go through the page cache");
  if (!attempt(0))
    throw Error{"IO", text("nvme_path '%s': %s (%s)", folder_.c_str(), cure_of_open(errno), strerror(errno))};
}

void SwapFile::take_space() {
  if (bytes_ == 0) return;
  struct statvfs disk;
  int64_t available = -1;
  if (fstatvfs(fd_, &disk) == 0)
    available = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  int error = available >= 0 && available < bytes_ ? ENOSPC : 0;
  if (!error) {
    // The kernel's own call: glibc's stand-in would write zeros over the whole file.
    while (fallocate(fd_, 0, 0, bytes_) != 0 && (error = errno) == EINTR) error = 0;
    if (error == EOPNOTSUPP || error == ENOSYS) {
      add_note("this file system cannot take space ahead: a disk that others fill is found later");
      error = ftruncate(fd_, bytes_) == 0 ? 0 : errno;
    }
  }
  if (!error) return;
  if (error == ENOSPC || error == EDQUOT)
    throw Error{"IO", text("nvme_path '%s' has %lld bytes left, %lld are needed on this rank; free some, or name a "
                           "folder on a larger disk",
                           folder_.c_str(), static_cast<long long>(available), static_cast<long long>(bytes_))};
  throw Error{"IO", text("nvme_path '%s': no room for %lld bytes (%s); name another folder", folder_.c_str(),
                         static_cast<long long>(bytes_), strerror(error))};
}

// A ring for each thread where io_uring works, with this file; else threads that stand for the blocks in flight.
void SwapFile::choose_engine() {
  std::string why = "io_uring: turned off";
  int depth = std::min(options_.queue_depth, 4096);
  std::unique_ptr<Uring> first = options_.allow_uring ? Uring::open(depth, &why) : nullptr;
  uring_ = first && ring_works(first.get(), &why);
  int count = options_.threads;
  if (!uring_) {
    add_note(why + ": threads read and write");
    count = std::min(options_.threads * depth, kMostThreads);
  }
  count = std::min(count, kMostThreads);
  for (int i = 0; i < count; i++) {
    auto lane = std::make_unique<Lane>();
    if (uring_) {
      lane->ring = i == 0 ? std::move(first) : Uring::open(depth, &why);
      if (!lane->ring) break;  // fewer do as well
    }
    lanes_.push_back(std::move(lane));
  }
  crew_ = std::make_unique<Crew>(static_cast<int>(lanes_.size()));
}

// Reads a page: an old kernel has rings, but not this request.
bool SwapFile::ring_works(Uring *ring, std::string *why) {
  if (bytes_ == 0) return true;
  Lane lane;
  lane.reserve(kDiskPage, 1);
  ring->push(false, fd_, lane.buffers.get(), static_cast<size_t>(kDiskPage), 0, 0);
  Uring::Done done{0, 0};
  int error = ring->submit(1);
  while (!error && !ring->reap(&done)) error = ring->submit(1);
  if (!error && done.result < 0) error = -done.result;
  if (!error) return true;
  *why = std::string("io_uring: ") + strerror(error);
  return false;
}

}  // namespace zs
