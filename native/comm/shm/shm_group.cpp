// The process group of one host: checks calls once, finds their group, and leaves the rest to the
// collectives. Ids of groups are this rank's own; members know a group by its members and ordinal.
#include <algorithm>
#include <array>
#include <map>

#include "../group.h"
#include "members.h"
#include "process.h"
#include "reduce.h"

namespace zs {
namespace shm {
namespace {

class PendingConnect : public PendingCall {
 public:
  PendingConnect(const Members &members, const Header &header) : PendingCall(members, header) {}
  std::string op() const override { return "commConnect"; }
  std::string what() const override { return "map the shared memory of all ranks"; }
  const char *timeout_code() const override { return "RENDEZVOUS"; }
};

std::string group_name(const std::vector<int> &ranks) {
  return (ranks.size() == 1 ? "rank " : "ranks ") + rank_list(ranks);
}

uint64_t group_identity(const std::vector<int> &ranks, int ordinal) {
  std::string text = std::to_string(ordinal);
  for (int rank : ranks) text.append(",").append(std::to_string(rank));
  return std::max<uint64_t>(hash64(text), 1);
}

bool overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
  const auto x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
  return x < y + static_cast<uintptr_t>(b_bytes) && y < x + static_cast<uintptr_t>(a_bytes);
}

class ShmGroup final : public ProcessGroup {
 public:
  ShmGroup(int rank, int world_size, const std::string &job_id, double timeout_seconds)
      : job_(rank, world_size, job_id, timeout_seconds) {
    std::vector<int> world;
    for (int r = 0; r < world_size; ++r) world.push_back(r);
    publish(world, rank);
  }

  void *arena_allocate(size_t bytes) override { return job_.arena().allocate(bytes); }
  void arena_release(void *data, size_t bytes) override { job_.arena().release(data, bytes); }
  std::string facts() const override { return job_.facts(); }
  void abort(const CommError &error) override { job_.record(error.code, error.message); }

  void check(bool waiting) override { waiting ? job_.check_alive() : job_.check(); }
  void connect(const std::vector<std::string> &facts) override;
  int group(const std::vector<int> &ranks) override;
  void run(const CollectiveCall &call) override;

 private:
  void publish(const std::vector<int> &ranks, int me);
  Members &find(const CollectiveCall &call);
  void check(const CollectiveCall &call, const Members &members);
  void check_aliasing(const CollectiveCall &call, const Members &members);
  [[noreturn]] void refuse(const CollectiveCall &call, const char *code, const std::string &why) {
    job_.fail(code, "[" + std::string(kind_name(call.kind)) + "] rank " + std::to_string(job_.rank()) + ": " + why);
  }

  Job job_;
  std::mutex groups_mutex_;  // of the making of groups
  int num_groups_ = 0;
  std::map<std::vector<int>, int> ordinals_;
  std::array<std::unique_ptr<Members>, kMaxGroups> owned_;
  std::array<std::atomic<Members *>, kMaxGroups> groups_{};
};

// Makes this rank's slot for the group and tells the peers; the id is num_groups_ - 1.
void ShmGroup::publish(const std::vector<int> &ranks, int me) {
  if (num_groups_ == kMaxGroups) {
    job_.fail("COLLECTIVE_MISMATCH", "[commGroup] rank " + std::to_string(job_.rank()) + " made " +
                                         std::to_string(kMaxGroups) + " groups; that is the most");
  }
  Slot *slot = make_slot(job_, group_name(ranks), static_cast<int>(ranks.size()));
  const uint64_t identity = group_identity(ranks, ordinals_[ranks]++);
  const auto id = static_cast<size_t>(num_groups_++);
  auto members = std::make_unique<Members>();
  members->id = static_cast<int>(id);
  members->me = me;
  members->ranks = ranks;
  members->name = group_name(ranks);
  members->identity = identity;
  owned_[id] = std::move(members);
  GroupEntry &entry = job_.control(job_.rank()).groups[id];
  entry.slot = static_cast<uint64_t>(reinterpret_cast<char *>(slot) - job_.arena().base());
  entry.identity.store(identity, std::memory_order_release);
}

void ShmGroup::connect(const std::vector<std::string> &facts) {
  const std::lock_guard<std::mutex> lock(groups_mutex_);
  job_.connect(facts);
  Members &world = *owned_[0];
  join(job_, world);
  const Header header{};
  step(job_, world, PendingConnect(world, header));
  job_.arena().unlink();  // all have mapped it
  groups_[0].store(&world, std::memory_order_release);
}

int ShmGroup::group(const std::vector<int> &ranks) {
  const std::lock_guard<std::mutex> lock(groups_mutex_);
  job_.check();
  if (!groups_[0].load()) job_.fail("RENDEZVOUS", "[commGroup] called before commConnect");
  const auto refuse = [&](const std::string &why) {
    job_.fail("ARGUMENT", "[commGroup] ranks " + rank_list(ranks) + ": " + why);
  };
  std::vector<bool> seen(static_cast<size_t>(job_.world_size()));
  for (int rank : ranks) {
    if (rank < 0 || rank >= job_.world_size()) refuse("no rank " + std::to_string(rank) + " in a world of " + std::to_string(job_.world_size()));
    if (seen[static_cast<size_t>(rank)]) refuse("rank " + std::to_string(rank) + " twice");
    seen[static_cast<size_t>(rank)] = true;
  }
  const auto me = std::find(ranks.begin(), ranks.end(), job_.rank());
  if (me == ranks.end()) refuse("rank " + std::to_string(job_.rank()) + " called it, but is not among them");
  publish(ranks, static_cast<int>(me - ranks.begin()));
  const auto id = static_cast<size_t>(num_groups_ - 1);
  join(job_, *owned_[id]);
  groups_[id].store(owned_[id].get(), std::memory_order_release);
  return static_cast<int>(id);
}

Members &ShmGroup::find(const CollectiveCall &call) {
  job_.check();
  Members *members = nullptr;
  if (call.group >= 0 && call.group < kMaxGroups) {
    members = groups_[static_cast<size_t>(call.group)].load(std::memory_order_acquire);
  }
  if (!members) refuse(call, "ARGUMENT", "no group " + std::to_string(call.group));
  return *members;
}

void ShmGroup::check(const CollectiveCall &call, const Members &members) {
  if (call.kind == Collective::barrier) return;
  if (element_size(call.dtype) == 0) refuse(call, "DTYPE", "no element type " + std::to_string(call.dtype));
  if (call.count < 0) refuse(call, "SHAPE", "count " + std::to_string(call.count) + " is negative");
  const bool peered = call.kind == Collective::broadcast || call.kind == Collective::send || call.kind == Collective::recv;
  if (peered && (call.peer < 0 || call.peer >= members.size())) {
    refuse(call, "ARGUMENT", "no rank " + std::to_string(call.peer) + " in a group of " + std::to_string(members.size()));
  }
  const bool sums = call.kind == Collective::all_reduce || call.kind == Collective::reduce_scatter;
  if (sums && !summable(call.dtype)) refuse(call, "DTYPE", std::string("cannot sum ") + dtype_name(call.dtype));
  if (sums && call.average && !averageable(call.dtype)) {
    refuse(call, "DTYPE", std::string("cannot average ") + dtype_name(call.dtype) + "; sum it, or cast to f32");
  }
  const bool reads = call.kind != Collective::recv, writes = call.kind != Collective::send;
  if (call.count > 0 && ((reads && !call.input && !call.output) || (writes && !call.output) ||
                         (call.kind == Collective::send && !call.input))) {
    refuse(call, "ARGUMENT", "buffer missing");
  }
  check_aliasing(call, members);
}

// Buffers may coincide where the interface says so; other overlaps would give wrong numbers.
void ShmGroup::check_aliasing(const CollectiveCall &call, const Members &members) {
  if (!call.input || call.count == 0 || members.size() == 1) return;
  if (call.kind == Collective::send || call.kind == Collective::recv) return;
  const auto element = static_cast<int64_t>(element_size(call.dtype));
  const int64_t one = call.count * element, all = one * members.size(), own = one * members.me;
  const auto *input = static_cast<const char *>(call.input);
  const auto *output = static_cast<const char *>(call.output);
  bool allowed = input == output;
  int64_t input_bytes = one, output_bytes = one;
  if (call.kind == Collective::all_gather) {
    output_bytes = all;
    allowed = input == output + own;
  } else if (call.kind == Collective::reduce_scatter) {
    input_bytes = all;
    allowed = output == input + own;
  } else if (call.kind == Collective::all_to_all) {
    input_bytes = output_bytes = all;
    allowed = false;
  }
  if (!allowed && overlap(input, input_bytes, output, output_bytes)) {
    refuse(call, "ARGUMENT", "input and output overlap");
  }
}

void ShmGroup::run(const CollectiveCall &call) {
  Members &members = find(call);
  check(call, members);
  switch (call.kind) {
    case Collective::send: return run_send(job_, members, call);
    case Collective::recv: return run_receive(job_, members, call);
    default: return run_collective(job_, members, call);
  }
}

}  // namespace
}  // namespace shm

std::unique_ptr<ProcessGroup> make_shm_group(int rank, int world_size, const std::string &job_id,
                                             double timeout_seconds) {
  return std::make_unique<shm::ShmGroup>(rank, world_size, job_id, timeout_seconds);
}

}  // namespace zs
