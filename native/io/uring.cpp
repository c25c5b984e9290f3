#include "uring.h"

#include <errno.h>
#include <string.h>

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

namespace zs {

namespace {

// What both sides of a ring write.
std::atomic_ref<unsigned> shared(unsigned *value) { return std::atomic_ref<unsigned>(*value); }

}  // namespace

std::unique_ptr<Uring> Uring::open(int depth, std::string *why) {
  io_uring_params params;
  memset(&params, 0, sizeof params);
  std::unique_ptr<Uring> ring(new Uring());
  ring->fd_ = static_cast<int>(syscall(__NR_io_uring_setup, depth, &params));
  if (ring->fd_ < 0) {
    *why = std::string("io_uring: ") + strerror(errno);
    return nullptr;
  }
  if (!(params.features & IORING_FEAT_SINGLE_MMAP)) {
    *why = "io_uring: the kernel is too old";
    return nullptr;
  }
  size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
  size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
  ring->rings_bytes_ = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
  ring->entries_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
  auto map = [&](size_t bytes, uint64_t what) {
    void *place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd_,
                       static_cast<off_t>(what));
    return place == MAP_FAILED ? nullptr : place;
  };
  ring->rings_ = static_cast<char *>(map(ring->rings_bytes_, IORING_OFF_SQ_RING));
  ring->entries_ = map(ring->entries_bytes_, IORING_OFF_SQES);
  if (!ring->rings_ || !ring->entries_) {
    *why = std::string("io_uring: ") + strerror(errno);
    return nullptr;
  }
  auto at = [&](unsigned offset) { return reinterpret_cast<unsigned *>(ring->rings_ + offset); };
  ring->sq_tail_ = at(params.sq_off.tail);
  ring->cq_head_ = at(params.cq_off.head);
  ring->cq_tail_ = at(params.cq_off.tail);
  ring->sq_mask_ = *at(params.sq_off.ring_mask);
  ring->cq_mask_ = *at(params.cq_off.ring_mask);
  ring->completions_ = ring->rings_ + params.cq_off.cqes;
  unsigned *order = at(params.sq_off.array);
  for (unsigned i = 0; i < params.sq_entries; i++) order[i] = i;
  return ring;
}

Uring::~Uring() {
  if (entries_) munmap(entries_, entries_bytes_);
  if (rings_) munmap(rings_, rings_bytes_);
  if (fd_ >= 0) close(fd_);
}

void Uring::push(bool write, int file, void *data, size_t bytes, int64_t offset, uint64_t id) {
  unsigned tail = *sq_tail_;  // only this side writes it
  io_uring_sqe &entry = static_cast<io_uring_sqe *>(entries_)[tail & sq_mask_];
  memset(&entry, 0, sizeof entry);
  entry.opcode = write ? IORING_OP_WRITE : IORING_OP_READ;
  entry.fd = file;
  entry.addr = reinterpret_cast<uint64_t>(data);
  entry.len = static_cast<unsigned>(bytes);
  entry.off = static_cast<uint64_t>(offset);
  entry.user_data = id;
  shared(sq_tail_).store(tail + 1, std::memory_order_release);
  unsubmitted_++;
}

int Uring::submit(unsigned wanted) {
  for (;;) {
    long taken = syscall(__NR_io_uring_enter, fd_, unsubmitted_, wanted,
                         wanted ? IORING_ENTER_GETEVENTS : 0, nullptr, 0);
    if (taken >= 0) {
      unsubmitted_ -= static_cast<unsigned>(taken);
      if (unsubmitted_ == 0 || wanted) return 0;  // what is left goes with the next call
    } else if (errno == EAGAIN || errno == EBUSY) {
      return 0;  // the caller reaps, and comes again
    } else if (errno != EINTR) {
      return errno;
    }
  }
}

bool Uring::reap(Done *done) {
  unsigned head = *cq_head_;
  if (head == shared(cq_tail_).load(std::memory_order_acquire)) return false;
  const io_uring_cqe &entry = static_cast<io_uring_cqe *>(completions_)[head & cq_mask_];
  *done = {entry.user_data, entry.res};
  shared(cq_head_).store(head + 1, std::memory_order_release);
  return true;
}

}  // namespace zs

#else  // no io_uring on this platform

namespace zs {

std::unique_ptr<Uring> Uring::open(int, std::string *why) {
  *why = "io_uring: not on this platform";
  return nullptr;
}
Uring::~Uring() = default;
void Uring::push(bool, int, void *, size_t, int64_t, uint64_t) {}
int Uring::submit(unsigned) { return ENOSYS; }
bool Uring::reap(Done *) { return false; }

}  // namespace zs
#endif
