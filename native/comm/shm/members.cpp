// See members.h.
#include "members.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <thread>

#include "reduce.h"

namespace zs::shm {
namespace {

// Address space; memory only as far as it is used, but for an arena in /dev/shm.
constexpr size_t kStaging = size_t{8} << 20, kStagingNamed = size_t{1} << 20;

bool same_call(const Header &a, const Header &b) {
  return a.sequence == b.sequence && a.kind == b.kind && a.dtype == b.dtype && a.count == b.count &&
         a.root == b.root && a.average == b.average && a.tag == b.tag;
}

// Ranks that call the same are told together: "ranks 0, 2 called …, rank 1 called …".
[[noreturn]] void mismatch(Job &job, const Members &members, const PendingCall &pending) {
  std::vector<std::pair<std::string, std::vector<int>>> calls;
  for (int m = 0; m < members.size(); ++m) {
    const auto at = static_cast<size_t>(m);
    const std::string call = describe(members.headers[at], members.ranks);
    auto known = std::find_if(calls.begin(), calls.end(), [&](const auto &c) { return c.first == call; });
    if (known == calls.end()) known = calls.insert(calls.end(), {call, {}});
    known->second.push_back(members.ranks[at]);
  }
  std::string text;
  for (const auto &[call, ranks] : calls) {
    if (!text.empty()) text += ", ";
    text.append(ranks.size() == 1 ? "rank " : "ranks ").append(rank_list(ranks));
    text.append(" called ").append(call);
  }
  std::string where = "[";
  where.append(pending.op()).append("] group of ").append(members.name).append(", sequence ");
  where.append(std::to_string(members.sequence)).append(": ").append(text);
  job.fail("COLLECTIVE_MISMATCH", where + "; all members must make the same calls in the same order");
}

class PendingJoin : public Pending {
 public:
  PendingJoin(const Members &members, const std::vector<int> &missing) : members_(members), missing_(missing) {}
  std::string op() const override { return members_.id == 0 ? "commConnect" : "commGroup"; }
  std::string what() const override { return "create the group of " + members_.name; }
  std::vector<int> missing() const override { return missing_; }
  const char *timeout_code() const override { return members_.id == 0 ? "RENDEZVOUS" : "COLLECTIVE_TIMEOUT"; }

 private:
  const Members &members_;
  const std::vector<int> &missing_;
};

// The slot that `rank` published under this identity, or NULL while it has not.
Slot *find_slot(const Job &job, int rank, uint64_t identity) {
  const Control &control = job.control(rank);
  for (const GroupEntry &entry : control.groups) {
    const uint64_t there = entry.identity.load(std::memory_order_acquire);
    if (there == 0) return nullptr;
    if (there == identity) return reinterpret_cast<Slot *>(job.base(rank) + entry.slot);
  }
  return nullptr;
}

}  // namespace

const char *kind_name(Collective kind) {
  static const char *const names[] = {"barrier",   "allReduce", "reduceScatter", "allGather",
                                      "broadcast", "allToAll",  "send",          "recv"};
  const int at = static_cast<int>(kind);
  return at >= 0 && at < 8 ? names[at] : "an unknown collective";
}

std::string describe(const Header &header, const std::vector<int> &ranks) {
  const auto kind = static_cast<Collective>(header.kind);
  std::string text = kind_name(kind);
  if (kind == Collective::barrier) return text;
  text += std::string(" ") + dtype_name(header.dtype) + " ×" + std::to_string(header.count);
  if (kind == Collective::broadcast) {
    text += " from rank " + std::to_string(ranks[static_cast<size_t>(header.root)]);
  }
  if (header.average) text += " averaged";
  return header.tag ? text + " tag " + std::to_string(header.tag) : text;
}

std::string PendingCall::op() const { return kind_name(static_cast<Collective>(header_.kind)); }

std::string PendingCall::what() const {
  return describe(header_, members_.ranks) + " (sequence " + std::to_string(header_.sequence) +
         ", group of " + members_.name + ")";
}

std::vector<int> PendingCall::missing() const {
  std::vector<int> missing;
  for (size_t m = 0; m < members_.slots.size(); ++m) {
    if (members_.slots[m]->step.load(std::memory_order_acquire) < members_.step) missing.push_back(members_.ranks[m]);
  }
  return missing;
}

Slot *make_slot(Job &job, const std::string &group, int size) {
  Arena &arena = job.arena();
  const size_t staging = arena.named() ? kStagingNamed : kStaging;
  // The staging area comes last, so that the release of a slot is one range.
  const size_t slot = (Slot::bytes(size) + kPage - 1) / kPage * kPage;
  char *data = static_cast<char *>(arena.allocate(slot + staging));
  if (!data) job.fail("OUT_OF_MEMORY", "[commGroup] the group of " + group + " " + arena.no_room(slot + staging));
  std::memset(data, 0, slot);  // the range may have been used before
  Slot *made = reinterpret_cast<Slot *>(data);
  made->staging = static_cast<uint64_t>(data + slot - arena.base());
  made->staging_bytes = staging;
  return made;
}

void join(Job &job, Members &members) {
  const size_t size = members.ranks.size();
  members.slots.assign(size, nullptr);
  members.headers.resize(size);
  for (size_t m = 0; m < size; ++m) members.links.push_back(std::make_unique<Link>());
  std::vector<int> missing = members.ranks;
  const PendingJoin pending(members, missing);
  const double started = Job::now();
  const auto look = [&] {
    missing.clear();
    for (size_t m = 0; m < size; ++m) {
      if (!members.slots[m]) members.slots[m] = find_slot(job, members.ranks[m], members.identity);
      if (!members.slots[m]) missing.push_back(members.ranks[m]);
    }
    return missing.empty();
  };
  for (int microseconds = 20; !look(); microseconds = std::min(2 * microseconds, 5000)) {
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    job.watch(look, pending, started);
  }
  members.own = members.slots[static_cast<size_t>(members.me)];
  members.staging_bytes = UINT64_MAX;
  for (const Slot *slot : members.slots) members.staging_bytes = std::min(members.staging_bytes, slot->staging_bytes);
}

void step(Job &job, Members &members, const Pending &pending) {
  const uint64_t step = ++members.step;
  Slot &first = *members.slots[0];
  const uint64_t arrivals = first.arrivals.fetch_add(1, std::memory_order_acq_rel) + 1;
  members.own->step.store(step, std::memory_order_release);
  if (arrivals == step * members.slots.size()) Job::post(first.epoch, static_cast<uint32_t>(step));
  else job.wait(first.epoch, static_cast<uint32_t>(step), pending);
}

void enter(Job &job, Members &members, const Header &header, const void *small, size_t small_bytes,
           const Pending &pending) {
  const size_t parity = (members.step + 1) & 1;
  Entry &entry = members.own->entries[parity];
  entry.header = header;
  if (small_bytes != 0) std::memcpy(entry.data, small, small_bytes);
  members.own->sequence.store(header.sequence, std::memory_order_relaxed);
  step(job, members, pending);
  bool same = true;
  for (size_t m = 0; m < members.slots.size(); ++m) {
    members.headers[m] = members.slots[m]->entries[parity].header;
    same = same && same_call(members.headers[m], header);
  }
  if (!same) mismatch(job, members, PendingCall(members, header));
}

}  // namespace zs::shm
