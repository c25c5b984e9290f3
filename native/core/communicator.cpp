#include "communicator.h"

#include <algorithm>
#include <cstring>

#include "../comm/device/device_group.h"
#include "dtype.h"
#include "memory.h"
#include "staged.h"

namespace zs {

// Weak: a build without the transport still runs worlds of one rank.
std::unique_ptr<ProcessGroup> make_shm_group(int rank, int world_size, const std::string &job_id,
                                             double timeout_seconds) __attribute__((weak));

const char *const kCollectiveNames[kNumCollectives] = {
    "barrier", "allReduce", "reduceScatter", "allGather", "broadcast", "allToAll", "send", "recv"};

namespace {

Error from(const CommError &error) { return {error.code, error.message}; }

class CollectiveJob : public Job {
 public:
  CollectiveJob(std::shared_ptr<Communicator::State> state, const CollectiveCall &call, int group,
                const Communicator::Group &members, size_t bytes, const CollectivePlace &place)
      : state_(std::move(state)), call_(call), group_(group), members_(members), bytes_(bytes), place_(place) {}
  void run() override { state_->run(call_, members_, bytes_, place_); }
  TraceDetail detail() const override {
    bool in_parts = call_.kind == Collective::reduce_scatter ||
                    call_.kind == Collective::all_gather || call_.kind == Collective::all_to_all;
    return {static_cast<int32_t>(call_.kind), group_, members_.size, call_.dtype, call_.count,
            static_cast<int64_t>(bytes_) * (in_parts ? members_.size : 1)};
  }

 private:
  std::shared_ptr<Communicator::State> state_;
  CollectiveCall call_;
  int group_;
  const Communicator::Group members_;
  size_t bytes_;
  CollectivePlace place_;
};

void need(const zs_tensor &range, const char *what) {
  if (!range.data) throw Error{"ARGUMENT", text("the %s is absent", what)};
}

void same_count(int64_t have, int64_t want, const char *what) {
  if (have != want)
    throw Error{"SHAPE", text("the %s has %lld elements, not %lld", what,
                              static_cast<long long>(have), static_cast<long long>(want))};
}

}  // namespace

void Communicator::State::run(const CollectiveCall &call, const Group &group, size_t bytes,
                              const CollectivePlace &place) {
  {
    std::lock_guard guard(lock);
    if (aborted) throw *aborted;
  }
  if (place.device) return exchange(call, group, bytes, place);
  if (group.size == 1) {
    if (bytes > 0 && call.output != call.input) memmove(call.output, call.input, bytes);
    return;
  }
  try {
    transport->run(call);
  } catch (const CommError &error) {
    throw from(error);
  }
}

// On a device's stream. A transport between devices gets the tensors as they are; what it gathers from host memory (a
// shard that is offloaded) goes to its slot of the output first. For other transports, and where another tensor lies in
// host memory, they pass through host memory.
void Communicator::State::exchange(const CollectiveCall &given, const Group &group, size_t bytes,
                                   const CollectivePlace &place) {
  const int size = group.size;
  CollectiveCall call = given;
  bool all_there = (!call.output || place.output) && (!call.input || place.input || call.input == call.output);
  if (size == 1 && all_there) {
    if (bytes > 0 && call.output != call.input) place.device->copy(call.output, call.input, bytes, ZS_ON_DEVICE);
    return;
  }
  try {
    if (size > 1 && call.kind == Collective::all_gather && place.output && !place.input && transport->takes(call)) {
      char *slot = static_cast<char *>(call.output) + bytes * static_cast<size_t>(group.rank);
      place.device->copy(slot, call.input, bytes, ZS_TO_DEVICE_PINNED);
      call.input = slot;
      all_there = true;
    }
    if (size > 1 && all_there && transport->takes(call)) {
      call.stream = &place.device->stream();
      return transport->run(call);
    }
    bool message = call.kind == Collective::send || call.kind == Collective::recv;
    if (size > 1 && message && transport->takes(call))
      throw Error{"UNSUPPORTED", "messages between these ranks go from device to device, the tensor lies in host memory"};
    run_staged(size > 1 ? transport.get() : nullptr, call, size, bytes, place);
  } catch (const CommError &error) {
    throw from(error);
  }
}

std::string Communicator::create(int rank, int world_size, const std::string &job_id,
                                 double timeout_seconds, const DeviceTransport &device) {
  if (created_) throw Error{"ARGUMENT", "there is a process group already; destroy it first"};
  if (world_size < 1 || rank < 0 || rank >= world_size)
    throw Error{"ARGUMENT", text("rank %d is not in a world of %d", rank, world_size)};
  auto state = std::make_shared<State>();
  std::string facts;
  if (world_size > 1) {
    if (!make_shm_group) throw Error{"UNSUPPORTED", "this build has no transport between ranks"};
    try {
      auto host = make_shm_group(rank, world_size, job_id, timeout_seconds);
      if (device.backend)
        state->transport = std::make_shared<DeviceGroup>(std::move(host), *device.backend, device.uuid, rank,
                                                         world_size, timeout_seconds, device.lost);
      else state->transport = std::move(host);
      facts = state->transport->facts();
    } catch (const CommError &error) {
      throw from(error);
    }
  }
  state_ = std::move(state);
  groups_ = {Group{world_size, rank, world_size > 1 ? 0 : -1}};
  rank_ = rank;
  world_size_ = world_size;
  created_ = true;
  connected_ = false;
  return facts;
}

void Communicator::connect(const std::vector<std::string> &facts) {
  if (!created_) throw Error{"ARGUMENT", "there is no process group; create it first"};
  if (connected_) throw Error{"ARGUMENT", "the process group is connected already"};
  if (static_cast<int>(facts.size()) != world_size_)
    throw Error{"ARGUMENT", text("facts of %zu ranks for a world of %d", facts.size(), world_size_)};
  try {
    if (state_->transport) state_->transport->connect(facts);
  } catch (const CommError &error) {
    throw from(error);
  }
  connected_ = true;
}

int Communicator::group(const std::vector<int> &ranks) {
  auto self = std::find(ranks.begin(), ranks.end(), rank_);
  if (self == ranks.end())
    throw Error{"ARGUMENT", text("rank %d is not a member of the group it creates", rank_)};
  std::vector<int> sorted = ranks;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    throw Error{"ARGUMENT", "a rank is twice in the group"};
  if (sorted.front() < 0 || sorted.back() >= world_size_)
    throw Error{"ARGUMENT", text("the group has ranks outside the world of %d", world_size_)};
  Group made{static_cast<int>(ranks.size()), static_cast<int>(self - ranks.begin()), -1};
  if (made.size > 1) {
    if (!connected_) throw Error{"ARGUMENT", "the process group is not connected yet"};
    try {
      made.transport_id = state_->transport->group(ranks);
    } catch (const CommError &error) {
      throw from(error);
    }
  }
  groups_.push_back(made);
  return static_cast<int>(groups_.size()) - 1;
}

bool Communicator::link(int group, int from, int to) {
  const Group &members = groups_[read_index(group, static_cast<int>(groups_.size()), "group")];
  read_index(from, members.size, "sender");
  read_index(to, members.size, "receiver");
  if (from == to || (from != members.rank && to != members.rank))
    throw Error{"ARGUMENT", text("rank %d of the group has no part in messages from %d to %d", members.rank, from, to)};
  if (!connected_) throw Error{"ARGUMENT", "the process group is not connected yet"};
  try {
    return state_->transport->link(members.transport_id, from, to);
  } catch (const CommError &error) {
    throw ::zs::from(error);
  }
}

bool Communicator::window(int group, void *data, size_t bytes) {
  const Group &members = groups_[read_index(group, static_cast<int>(groups_.size()), "group")];
  if (members.size == 1) return false;
  if (!connected_) throw Error{"ARGUMENT", "the process group is not connected yet"};
  try {
    return state_->transport->window(members.transport_id, data, bytes);
  } catch (const CommError &error) {
    throw from(error);
  }
}

void Communicator::drop_window(int group, void *data) {
  try {
    state_->transport->drop_window(groups_[static_cast<size_t>(group)].transport_id, data);
  } catch (const CommError &error) {
    throw from(error);
  }
}

void Communicator::abort(const Error &error) {
  {
    std::lock_guard guard(state_->lock);
    if (!state_->aborted) state_->aborted = std::make_unique<Error>(error);
  }
  if (state_->transport) state_->transport->abort({error.code, error.message});
}

// Jobs under way keep the transport until they end.
void Communicator::destroy() {
  state_ = std::make_shared<State>();
  groups_ = {Group{}};
  rank_ = 0;
  world_size_ = 1;
  created_ = connected_ = false;
}

std::unique_ptr<Job> Communicator::collective(Collective kind, int group, const zs_tensor &output,
                                              const zs_tensor &input, double detail, int64_t tag,
                                              bool average, const CollectivePlace &place) {
  const Group &members = groups_[read_index(group, static_cast<int>(groups_.size()), "group")];
  if (members.size > 1 && !connected_)
    throw Error{"ARGUMENT", "the process group is not connected yet"};
  CollectiveCall call = checked(kind, members, output, input, detail);
  call.tag = tag;
  call.average = average;
  int dtype = output.data ? output.dtype : input.dtype;
  size_t bytes = call.dtype < 0 ? 0 : static_cast<size_t>(call.count * kDtypeBytes[dtype]);
  return std::make_unique<CollectiveJob>(state_, call, group, members, bytes, place);
}

CollectiveCall Communicator::checked(Collective kind, const Group &group, const zs_tensor &output,
                                     const zs_tensor &input, double detail) const {
  CollectiveCall call{};
  call.kind = kind;
  call.group = group.transport_id;
  call.output = output.data;
  call.input = input.data;
  call.dtype = output.data ? output.dtype : input.data ? input.dtype : -1;
  if (output.data && input.data && output.dtype != input.dtype)
    throw Error{"DTYPE", text("the output is %s, the input %s", kDtypeNames[output.dtype],
                              kDtypeNames[input.dtype])};
  bool in_place = kind == Collective::all_reduce || kind == Collective::broadcast;
  if (kind != Collective::barrier && kind != Collective::send) need(output, "output");
  if (kind != Collective::barrier && kind != Collective::recv && !in_place) need(input, "input");
  if (in_place && !input.data) call.input = output.data;
  if (in_place && input.data) same_count(input.count, output.count, "input");
  call.count = output.data ? output.count : input.count;
  switch (kind) {
    case Collective::reduce_scatter:
      same_count(input.count, output.count * group.size, "input");
      break;
    case Collective::all_gather:
      same_count(output.count, input.count * group.size, "output");
      call.count = input.count;
      break;
    case Collective::all_to_all:
      same_count(input.count, output.count, "input");
      if (output.count % group.size != 0)
        throw Error{"SHAPE", text("%lld elements do not part among %d ranks",
                                  static_cast<long long>(output.count), group.size)};
      call.count = output.count / group.size;
      break;
    case Collective::broadcast:
      call.peer = read_index(detail, group.size, "root");
      return call;
    case Collective::send:
    case Collective::recv:
      call.peer = read_index(detail, group.size, "peer");
      if (call.peer == group.rank)
        throw Error{"ARGUMENT", text("rank %d of the group cannot be its own peer", group.rank)};
      return call;
    case Collective::barrier:
      call.count = 0;
      return call;
    case Collective::all_reduce:
      return call;
  }
  if (detail != static_cast<double>(call.count))
    throw Error{"SHAPE", text("the count per rank is %lld by the tensors, %g by the call",
                              static_cast<long long>(call.count), detail)};
  return call;
}

}  // namespace zs
