// io_uring through the kernel's own calls: one ring of reads and writes. No library is needed, and none of this is
// assumed: open() says why where the kernel (or a sandbox) refuses.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace zs {

class Uring {
 public:
  // nullptr, and why, where there is no io_uring here. `depth`: requests that may be in flight.
  static std::unique_ptr<Uring> open(int depth, std::string *why);
  ~Uring();
  Uring(const Uring &) = delete;
  Uring &operator=(const Uring &) = delete;

  // Of a request that is done. result: bytes, or a negative errno.
  struct Done {
    uint64_t id;
    int result;
  };

  // There must be room: no more than `depth` requests that are not reaped.
  void push(bool write, int file, void *data, size_t bytes, int64_t offset, uint64_t id);
  // Hands over what was pushed and waits until `wanted` requests are done; 0, or an errno that ends this ring's use.
  int submit(unsigned wanted);
  bool reap(Done *done);
  unsigned unsubmitted() const { return unsubmitted_; }

 private:
  Uring() = default;
  int fd_ = -1;
  unsigned unsubmitted_ = 0;
  char *rings_ = nullptr;
  size_t rings_bytes_ = 0;
  void *entries_ = nullptr;
  size_t entries_bytes_ = 0;
  unsigned *sq_tail_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  unsigned sq_mask_ = 0, cq_mask_ = 0;
  void *completions_ = nullptr;
};

}  // namespace zs
