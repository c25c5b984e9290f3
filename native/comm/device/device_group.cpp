#include "device_group.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>

namespace zs {

namespace {

constexpr int kWatchMilliseconds = 100;
constexpr double kPatience = 1;  // seconds under way before somebody may be missing
constexpr const char *kMark = "|device ";  // between the host's facts and ours

std::string hex(const char *bytes, size_t count) {
  std::string text;
  char two[3];
  for (size_t i = 0; i < count; i++) {
    snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(bytes[i]));
    text += two;
  }
  return text;
}

std::string unhex(const std::string &text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<char>(strtoul(text.substr(i, 2).c_str(), nullptr, 16)));
  return bytes;
}

// What a rank says of itself: its device, how buffers are registered, and the id of a communicator; without an id the
// reason stands there.
struct Facts {
  std::string host, uuid, id, reason;
  int buffers = 0;
};

Facts read(const std::string &text) {
  Facts facts;
  size_t at = text.find(kMark);
  facts.host = text.substr(0, at);
  if (at == std::string::npos) return facts;
  std::string rest = text.substr(at + std::string(kMark).size());
  size_t space = rest.find(' ');
  facts.uuid = rest.substr(0, space);
  facts.buffers = atoi(rest.substr(space == std::string::npos ? 0 : space + 1).c_str());
  if (space != std::string::npos) space = rest.find(' ', space + 1);
  std::string last = space == std::string::npos ? "" : rest.substr(space + 1);
  if (last.starts_with("id=")) facts.id = unhex(last.substr(3));
  else facts.reason = last;
  return facts;
}

CommError device_error(const std::string &what, const char *error) { return {"DEVICE", "[" + what + "] " + error}; }

}  // namespace

DeviceGroup::DeviceGroup(std::unique_ptr<ProcessGroup> host, const zs_backend &backend, const std::string &device_uuid,
                         int rank, int world_size, double timeout_seconds, Lost lost)
    : host_(std::move(host)),
      backend_(backend),
      collectives_(backend.collectives),
      rank_(rank),
      world_size_(world_size),
      timeout_(timeout_seconds),
      lost_(std::move(lost)) {
  char id[ZS_UNIQUE_ID_BYTES], error[ZS_ERROR_BYTES] = "the backend has no collectives";
  bool have = collectives_ && collectives_->open(error) == ZS_OK && collectives_->unique_id(id, error) == ZS_OK;
  int buffers = have ? static_cast<int>(registered_.configure(*collectives_)) : 0;
  facts_ = host_->facts() + kMark + device_uuid + " " + std::to_string(buffers) + " " + (have ? "id=" + hex(id, sizeof id) : std::string(error));
}

// Messages that were sent are delivered first, under the eyes of the watcher.
DeviceGroup::~DeviceGroup() {
  for (auto &[key, link] : links_) link->finish();
  stop_.store(true);
  if (watcher_.joinable()) watcher_.join();
  for (auto &[group, member] : members_) {
    registered_.remove(member->communicator);
    collectives_->destroy(member->communicator);
  }
}

std::string DeviceGroup::facts() const { return facts_; }

void DeviceGroup::connect(const std::vector<std::string> &facts) {
  std::vector<std::string> of_hosts;
  std::set<std::string> devices;
  std::string id;
  int buffers = static_cast<int>(Buffers::symmetric);
  for (size_t r = 0; r < facts.size(); r++) {
    Facts one = read(facts[r]);
    of_hosts.push_back(one.host);
    buffers = std::min(buffers, one.buffers);
    bool shared = !devices.insert(one.uuid).second && !getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    if (r == 0) id = one.id;
    if (!note_.empty()) continue;
    if (one.id.empty()) note_ = "rank " + std::to_string(r) + ": " + one.reason;
    else if (shared) note_ = "ranks share a device";
  }
  host_->connect(of_hosts);
  for (int r = 0; r < world_size_; r++) ranks_[0].push_back(r);
  if (!note_.empty()) return;
  registered_.agree(static_cast<Buffers>(buffers));
  char error[ZS_ERROR_BYTES] = "";
  auto world = std::make_unique<Member>();
  world->size = world_size_;
  if (collectives_->create(world_size_, rank_, id.data(), &world->communicator, error) != ZS_OK)
    throw device_error("commConnect", error);
  wait_made(world->communicator, "commConnect");
  registered_.add(world->communicator);
  {
    std::lock_guard guard(lock_);
    members_[0] = std::move(world);
  }
  watcher_ = std::thread([this] { watch(); });
}

void DeviceGroup::wait_ready(void *communicator, const std::string &what) {
  auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_);
  char error[ZS_ERROR_BYTES] = "";
  int32_t busy = 1;
  while (collectives_->busy(communicator, &busy, error) == ZS_OK) {
    if (!busy) return;
    if (std::chrono::steady_clock::now() > end) {
      snprintf(error, sizeof error, "rank %d: the devices' communicator is not made after %g s", rank_, timeout_);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  throw device_error(what, error);
}

// The communicator is destroyed where that fails.
void DeviceGroup::wait_made(void *communicator, const std::string &what) {
  try {
    wait_ready(communicator, what);
  } catch (const CommError &) {
    collectives_->abort(communicator);
    collectives_->destroy(communicator);
    throw;
  }
}

int DeviceGroup::group(const std::vector<int> &ranks) {
  int id = host_->group(ranks);
  std::unique_lock guard(lock_);
  ranks_[id] = ranks;
  auto world = members_.find(0);
  if (world == members_.end() || !std::is_sorted(ranks.begin(), ranks.end())) return id;
  void *parent = world->second->communicator;
  guard.unlock();
  std::vector<int32_t> left_out;
  for (int r = 0; r < world_size_; r++)
    if (std::find(ranks.begin(), ranks.end(), r) == ranks.end()) left_out.push_back(r);
  auto place = std::find(ranks.begin(), ranks.end(), rank_);
  auto made = std::make_unique<Member>();
  made->size = static_cast<int>(ranks.size());
  char error[ZS_ERROR_BYTES] = "";
  std::lock_guard queueing(queueing_);
  if (collectives_->part(parent, made->size, static_cast<int32_t>(place - ranks.begin()), left_out.data(),
                         static_cast<int32_t>(left_out.size()), &made->communicator, error) != ZS_OK)
    throw device_error("commGroup", error);
  try {
    wait_ready(parent, "commGroup");
  } catch (const CommError &error) {
    fail(error);
    throw;
  }
  wait_made(made->communicator, "commGroup");
  registered_.add(made->communicator);
  guard.lock();
  members_[id] = std::move(made);
  return id;
}

// The sender makes the id, which the host carries.
void *DeviceGroup::make_pair(int host_group, bool sends) {
  char id[ZS_UNIQUE_ID_BYTES], error[ZS_ERROR_BYTES] = "";
  if (sends && collectives_->unique_id(id, error) != ZS_OK) throw device_error("commLink", error);
  CollectiveCall call{};
  call.kind = sends ? Collective::send : Collective::recv;
  call.group = host_group;
  call.peer = sends ? 1 : 0;
  call.input = call.output = id;
  call.dtype = ZS_U8;
  call.count = sizeof id;
  host_->run(call);
  void *made = nullptr;
  if (collectives_->create(2, sends ? 0 : 1, id, &made, error) != ZS_OK) throw device_error("commLink", error);
  wait_made(made, "commLink");
  return made;
}

bool DeviceGroup::link(int group, int from, int to) {
  std::vector<int> ranks;
  {
    std::lock_guard guard(lock_);
    if (members_.empty()) return false;
    ranks = ranks_.at(group);
  }
  int source = ranks[static_cast<size_t>(from)], target = ranks[static_cast<size_t>(to)];
  bool sends = source == rank_;
  std::tuple key{group, sends ? to : from, sends};
  {
    std::lock_guard guard(lock_);
    if (links_.contains(key)) return true;
  }
  int host_group = host_->group({source, target});
  auto made = std::make_unique<Link>(
      Link::Ends{host_.get(), &backend_, host_group, sends ? 1 : 0, sends,
                 "messages from rank " + std::to_string(source) + " to rank " + std::to_string(target)},
      make_pair(host_group, sends), [this](const CommError &error) { give_up(error); });
  Link *link = made.get();
  {
    std::lock_guard guard(lock_);
    links_[key] = std::move(made);  // so that the watcher sees the first message, too
  }
  link->connect();
  return true;
}

// Not where one of the ranks has the range in other memory.
bool DeviceGroup::window(int group, void *data, size_t bytes) {
  const Member *member = find(group);
  if (!member || !registered_.is(Buffers::symmetric)) return false;
  float missing = registered_.holds(data, bytes) ? 0 : 1;
  CollectiveCall call{};
  call.kind = Collective::all_reduce;
  call.group = group;
  call.output = &missing;
  call.input = &missing;
  call.count = 1;
  call.dtype = ZS_F32;
  host_->run(call);
  if (missing > 0) return false;
  registered_.add_window(member->communicator, data, bytes);
  return true;
}

// No rank before all of them are done with it; and in one order with the windows that follow.
void DeviceGroup::drop_window(int group, void *data) {
  CollectiveCall call{};
  call.kind = Collective::barrier;
  call.group = group;
  call.dtype = -1;
  host_->run(call);
  if (const Member *member = find(group)) registered_.drop_window(member->communicator, data);
}

Link *DeviceGroup::find_link(const CollectiveCall &call) const {
  bool sends = call.kind == Collective::send;
  if (!sends && call.kind != Collective::recv) return nullptr;
  std::lock_guard guard(lock_);
  auto found = links_.find({call.group, call.peer, sends});
  return found == links_.end() ? nullptr : found->second.get();
}

const DeviceGroup::Member *DeviceGroup::find(int group) const {
  std::lock_guard guard(lock_);
  auto found = members_.find(group);
  return found == members_.end() ? nullptr : found->second.get();
}

bool DeviceGroup::takes(const CollectiveCall &call) const {
  if (call.kind == Collective::barrier) return false;
  if (call.kind == Collective::send || call.kind == Collective::recv) return find_link(call) != nullptr;
  bool sums = call.kind == Collective::all_reduce || call.kind == Collective::reduce_scatter;
  if (sums && call.average && call.dtype > ZS_F16) return false;  // which the host refuses, with the reason
  return find(call.group) != nullptr;
}

void DeviceGroup::run(const CollectiveCall &call) {
  {
    std::lock_guard guard(lock_);
    if (failed_) throw *failed_;
  }
  if (!call.stream) return host_->run(call);
  if (Link *link = find_link(call)) return link->run(call);
  const Member *member = find(call.group);
  zs_exchange exchange = {static_cast<int32_t>(call.kind), call.dtype, call.output, call.input, call.count, call.peer,
                          call.average};
  char error[ZS_ERROR_BYTES] = "";
  int32_t status;
  {
    std::lock_guard queueing(queueing_);
    status = collectives_->run(member->communicator, member->size, &exchange, call.stream, error);
  }
  if (status == ZS_OK) return;
  fail({"DEVICE", "rank " + std::to_string(rank_) + ": " + error});
  std::lock_guard guard(lock_);
  throw *failed_;
}

void DeviceGroup::abort(const CommError &error) {
  host_->abort(error);
  fail(error);
}

// The first failure ends all that is under way on all communicators, so that no stream waits for ever.
void DeviceGroup::fail(const CommError &error) {
  std::vector<void *> all;
  {
    std::lock_guard guard(lock_);
    if (failed_) return;
    failed_ = std::make_unique<CommError>(error);
    for (auto &[group, member] : members_) all.push_back(member->communicator);
    for (auto &[key, link] : links_) all.push_back(link->communicator());
  }
  if (all.empty()) return;
  lost_(error);
  for (void *communicator : all) collectives_->abort(communicator);
}

void DeviceGroup::watch() {
  while (!stop_.load()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(kWatchMilliseconds));
    std::vector<std::pair<std::string, void *>> all;
    {
      std::lock_guard guard(lock_);
      if (failed_) return;
      for (auto &[group, member] : members_)
        all.emplace_back("group " + std::to_string(group), member->communicator);
      for (auto &[key, link] : links_) all.emplace_back(link->name(), link->communicator());
    }
    double longest = 0;
    for (auto &[name, communicator] : all) {
      char error[ZS_ERROR_BYTES] = "";
      double seconds = 0;
      std::string who = "rank " + std::to_string(rank_) + ", " + name + ": ";
      if (collectives_->watch(communicator, &seconds, error) != ZS_OK) return give_up({"RANK_LOST", who + error});
      if (seconds > timeout_)
        return give_up({"COLLECTIVE_TIMEOUT", who + "a collective between devices is under way for " +
                                                  std::to_string(static_cast<int>(seconds)) + " s"});
      longest = std::max(longest, seconds);
    }
    if (longest == 0) continue;
    try {
      host_->check(longest > kPatience);
    } catch (const CommError &error) {  // another rank's, or one has ended
      return fail(error);
    }
  }
}

void DeviceGroup::give_up(const CommError &error) {
  host_->abort(error);  // tells the others
  fail(error);
}

}  // namespace zs
