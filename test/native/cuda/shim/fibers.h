// A CUDA grid on the host: blocks one after the other, each block's threads as fibers of one OS thread. A fiber runs
// until it meets a barrier of its block or a collective of its warp; there it gives way. A block whose threads do
// not all meet the same barrier, or a warp whose lanes do not all meet the same collective, is an error.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3;

namespace zs::shim {

constexpr size_t kSlot = 16;  // bytes that a lane can give to an exchange

struct Index { unsigned x, y, z; };
Index thread_index();
Index block_index();
Index grid_size();
Index block_size();
unsigned lane();

void block_barrier();
// Gives `size` bytes, waits for the warp's other lanes, returns what each gave (kSlot bytes apart): valid until this
// lane's next exchange but one.
const char *exchange(const void *value, size_t size);
void check_mask(unsigned mask);  // all lanes or none: what these kernels use

// Dynamic shared memory of the running block: filled with junk at its start, an unmapped page behind its end.
char *shared_memory();

enum class Order { forward, backward };
void set_order(Order order);  // in which threads, warps and blocks run

// The message of the first error since the last call, or nullptr; the kernel it came from did not end.
const char *take_error();

using Entry = void (*)(void *);
void run(Index grid, unsigned threads, size_t shared, Entry entry, void *body);

// What is launched on a stream runs when the stream comes to it.
class Stream {
 public:
  virtual void add(std::function<void()> work) = 0;

 protected:
  ~Stream() = default;
};

// On no stream (nullptr): at once.
template <class Grid, class Body> void launch(void *stream, const Grid &grid, unsigned threads, size_t shared, Body body) {
  const Index size{grid.x, grid.y, grid.z};
  std::function<void()> go = [=]() mutable { run(size, threads, shared, [](void *b) { (*static_cast<Body *>(b))(); }, &body); };
  if (stream) static_cast<Stream *>(stream)->add(std::move(go));
  else go();
}

}  // namespace zs::shim
