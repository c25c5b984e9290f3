// A work-sharing pool: the calling thread works too, helpers take pieces as they come.
// Several streams may call it at once; each call returns when its own pieces are done.
#pragma once
#include <cstdint>
#include <memory>

namespace zs {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // in all, the caller included; 1: no helper threads
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int num_threads() const;

  // body(begin, end) over [0, count), cut in pieces of at least `grain` (multiples of it, but the last).
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, Body &body) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    if (num_threads() == 1 || count <= grain) return body(int64_t{0}, count);
    run(count, grain, [](void *context, int64_t begin, int64_t end) { (*static_cast<Body *>(context))(begin, end); }, &body);
  }

 private:
  using Piece = void (*)(void *context, int64_t begin, int64_t end);
  void run(int64_t count, int64_t grain, Piece piece, void *context);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace zs
