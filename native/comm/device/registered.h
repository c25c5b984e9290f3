// Device memory that a rank's communicators know, so that they exchange what lies there without copies of their own:
// segments for the tensors that take part in collectives, registered by this rank alone with each communicator; and
// windows, ranges of them that all ranks of a group register together (NCCL's symmetric memory).
// ZEROSHARD_NCCL_BUFFERS: off (default), registered, symmetric, or copy-engine (symmetric, and no kernel where a copy
// engine of the device does the work).
#pragma once
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "../../backend/collectives.h"
#include "../group.h"

namespace zs {

enum class Buffers { off, registered, symmetric };

class Registered {
 public:
  // What this rank asks for and its library can do; `note` says why it is less.
  Buffers configure(const zs_collectives &collectives);
  void agree(Buffers all);  // the least of what the ranks can do; before anything else
  bool is(Buffers least) const { return mode_ >= least; }
  const std::string &note() const { return note_; }

  // nullptr: there is none left, or it is off.
  void *allocate(size_t bytes);
  void release(void *data, size_t bytes);
  // A communicator that was made; one that is about to be destroyed.
  void add(void *communicator);
  void remove(void *communicator);
  bool holds(const void *data, size_t bytes) const;
  // Throws CommError. All ranks of the communicator call it, for as many bytes, which stay until the window is dropped
  // or the communicator destroyed.
  void add_window(void *communicator, void *data, size_t bytes);
  void drop_window(void *communicator, void *data);  // all ranks, in one order with windows that are added

 private:
  struct Handle {
    void *handle;
    void *window;  // where it begins; nullptr: the whole segment is known, and no window
  };
  struct Segment {
    size_t bytes;
    std::multimap<void *, Handle> handles;  // by communicator
  };
  void add(void *communicator, void *data, Segment &segment);

  const zs_collectives *collectives_ = nullptr;
  Buffers mode_ = Buffers::off;
  std::string note_;
  mutable std::mutex lock_;
  std::map<char *, Segment> segments_;  // by where they begin
  std::vector<void *> communicators_;
};

}  // namespace zs
