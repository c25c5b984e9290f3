// What a process group is: collectives between the ranks of one job, each called by all members in the
// same order. A transport (shm here) fills it. Calls run on a stream's thread and block only that thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../backend/backend.h"

namespace zs {

enum class Collective : int { barrier, all_reduce, reduce_scatter, all_gather, broadcast, all_to_all, send, recv };

struct CommError {
  std::string code;  // COLLECTIVE_MISMATCH, COLLECTIVE_TIMEOUT, RANK_LOST, or what abort() was given
  std::string message;
};

// Buffers are borrowed until the call returns. count: elements of the whole array for all_reduce, broadcast, send, recv;
// per rank for reduce_scatter (output), all_gather (input) and all_to_all (each piece). Sums in f32 in rank order
// (i64 exact); average divides the f32 sum by the group's size before rounding. In place is allowed for
// all_reduce and broadcast; all_gather's input may be its own slot of the output.
struct CollectiveCall {
  Collective kind;
  int group;
  void *output;
  const void *input;
  int64_t count;
  int dtype;
  int peer;  // root of broadcast, peer of send and recv, as a rank of the group
  int64_t tag;
  bool average;
  const zs_stream *stream = nullptr;  // the buffers lie on the device: the call queues there; nullptr: on the host
};

class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;
  // Memory that peers can read directly; NULL where there is none left. Aligned to 4096.
  virtual void *arena_allocate(size_t bytes) = 0;
  virtual void arena_release(void *data, size_t bytes) = 0;
  virtual std::string facts() const = 0;
  virtual void connect(const std::vector<std::string> &facts) = 0;   // throws CommError
  virtual int group(const std::vector<int> &ranks) = 0;              // throws CommError
  virtual void run(const CollectiveCall &call) = 0;                  // throws CommError
  // Messages from one rank of a group to another go between their devices from now on. Both call it, in one order with
  // all other links and groups of theirs. False: they go as they did, which `note` explains. Throws CommError.
  virtual bool link(int group, int from, int to) { return (void)group, (void)from, (void)to, false; }
  // Throws CommError where the job has failed; `waiting`: or where a rank's process has ended. Any thread.
  virtual void check(bool waiting) { (void)waiting; }
  virtual bool takes(const CollectiveCall &) const { return false; }  // as it is, with buffers on the device
  virtual std::string note() const { return ""; }  // why something slower is used; empty: nothing is
  // A range of arena memory that all members of a group have alike, and give to its collectives at the same places: all
  // call it, nothing under way; the memory stays until drop_window() or the group's end. False: nothing was done.
  virtual bool window(int group, void *data, size_t bytes) { return (void)group, (void)data, (void)bytes, false; }
  virtual void drop_window(int group, void *data) { (void)group, (void)data; }  // what window() did; called as that is
  virtual void abort(const CommError &error) = 0;                    // any thread; wakes waiting calls
};

std::unique_ptr<ProcessGroup> make_shm_group(int rank, int world_size, const std::string &job_id, double timeout_seconds);

}  // namespace zs
