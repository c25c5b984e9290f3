// Memory of the stand-in for a device: device memory between unmapped pages, which the host cannot touch but
// while a stream is busy; pinned host memory, which asynchronous copies ask for.
#pragma once
#include <cstddef>

namespace zs::stand_in {

size_t memory_limit();  // ZEROSHARD_STAND_IN_MEMORY: bytes, 4 GiB where it is not said
size_t memory_taken();
void *take(size_t bytes, bool pinned);   // filled with junk; nullptr: none left
bool give_back(void *data, bool pinned);  // false: it was never taken
bool on_device(const void *data, size_t bytes);
bool is_pinned(const void *data, size_t bytes);

// While one lives, its thread is the device's: memory is open (until somebody closes it), kernels have the machine of
// fibers.h for themselves.
class Running {
 public:
  Running();
  ~Running();
  Running(const Running &) = delete;
};
void close_memory();  // when a stream has nothing more to do

}  // namespace zs::stand_in
