#include "registered.h"

#include <algorithm>
#include <cstdlib>

namespace zs {

Buffers Registered::configure(const zs_collectives &collectives) {
  collectives_ = &collectives;
  const char *given = getenv("ZEROSHARD_NCCL_BUFFERS");
  std::string wanted = given && given[0] ? given : "off";
  if (wanted == "off") return Buffers::off;
  if (wanted == "registered") return Buffers::registered;
  if (wanted != "symmetric" && wanted != "copy-engine")
    throw CommError{"ARGUMENT", "environment variable ZEROSHARD_NCCL_BUFFERS is '" + wanted +
                                    "'; it is off, registered, symmetric or copy-engine"};
  char error[ZS_ERROR_BYTES] = "";
  if (wanted == "copy-engine" && collectives.use_copy_engines(error) != ZS_OK)
    note_ = std::string("collectives by kernels: ") + error;
  return Buffers::symmetric;
}

void Registered::agree(Buffers all) { mode_ = all; }

void *Registered::allocate(size_t bytes) {
  if (mode_ == Buffers::off) return nullptr;
  void *data = collectives_->allocate(bytes);
  std::lock_guard guard(lock_);
  if (!data) {
    if (note_.empty()) note_ = "buffers of collectives are not registered: the library gave no memory for them";
    return nullptr;
  }
  Segment &segment = segments_[static_cast<char *>(data)] = {bytes, {}};
  for (void *communicator : communicators_) add(communicator, data, segment);
  return data;
}

// What cannot be registered works all the same.
void Registered::add(void *communicator, void *data, Segment &segment) {
  char error[ZS_ERROR_BYTES] = "";
  void *handle = nullptr;
  if (collectives_->add_memory(communicator, data, segment.bytes, 0, &handle, error) == ZS_OK)
    segment.handles.emplace(communicator, Handle{handle, nullptr});
  else if (note_.empty())
    note_ = std::string("buffers of collectives are not registered: ") + error;
}

void Registered::release(void *data, size_t bytes) {
  {
    std::lock_guard guard(lock_);
    auto found = segments_.find(static_cast<char *>(data));
    for (auto &[communicator, handle] : found->second.handles)
      collectives_->drop_memory(communicator, handle.handle, handle.window != nullptr);
    segments_.erase(found);
  }
  collectives_->release(data, bytes);
}

void Registered::add(void *communicator) {
  if (mode_ == Buffers::off) return;
  std::lock_guard guard(lock_);
  communicators_.push_back(communicator);
  for (auto &[data, segment] : segments_) add(communicator, data, segment);
}

void Registered::remove(void *communicator) {
  std::lock_guard guard(lock_);
  std::erase(communicators_, communicator);
  for (auto &[data, segment] : segments_) {
    auto [begin, end] = segment.handles.equal_range(communicator);
    for (auto at = begin; at != end; ++at) collectives_->drop_memory(communicator, at->second.handle, at->second.window != nullptr);
    segment.handles.erase(begin, end);
  }
}

bool Registered::holds(const void *data, size_t bytes) const {
  const char *begin = static_cast<const char *>(data);
  std::lock_guard guard(lock_);
  return std::any_of(segments_.begin(), segments_.end(), [&](auto &one) {
    return begin >= one.first && begin + bytes <= one.first + one.second.bytes;
  });
}

void Registered::add_window(void *communicator, void *data, size_t bytes) {
  char error[ZS_ERROR_BYTES] = "";
  void *handle = nullptr;
  if (collectives_->add_memory(communicator, data, bytes, 1, &handle, error) != ZS_OK)
    throw CommError{"DEVICE", std::string("[commWindow] ") + error};
  std::lock_guard guard(lock_);
  auto after = segments_.upper_bound(static_cast<char *>(data));
  (--after)->second.handles.emplace(communicator, Handle{handle, data});
}

void Registered::drop_window(void *communicator, void *data) {
  std::lock_guard guard(lock_);
  auto after = segments_.upper_bound(static_cast<char *>(data));
  if (after == segments_.begin()) return;
  auto &handles = (--after)->second.handles;
  auto [begin, end] = handles.equal_range(communicator);
  auto found = std::find_if(begin, end, [data](auto &one) { return one.second.window == data; });
  if (found == end) return;
  collectives_->drop_memory(communicator, found->second.handle, 1);
  handles.erase(found);
}

}  // namespace zs
