// How ranks of one job find each other's memory: facts() says where it is, connect() maps it and
// refuses what is of another job, another run or another host.
#include <unistd.h>

#include <map>
#include <sstream>

#include "job.h"
#include "process.h"

namespace zs::shm {

namespace {

std::string hex(uint64_t value) {
  std::ostringstream text;
  text << std::hex << value;
  return text.str();
}

using Facts = std::map<std::string, std::string>;

Facts parse(const std::string &text) {
  std::istringstream words(text);
  std::string word;
  Facts facts;
  while (words >> word) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos) facts[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return facts;
}

uint64_t number(const Facts &facts, const char *key, int base = 10) {
  const auto found = facts.find(key);
  return found == facts.end() ? 0 : std::strtoull(found->second.c_str(), nullptr, base);
}

}  // namespace

Job::Job(int rank, int world_size, const std::string &id, double timeout_seconds)
    : rank_(rank), world_size_(world_size), id_(id), timeout_(timeout_seconds) {
  if (world_size < 1 || world_size > kMaxRanks || rank < 0 || rank >= world_size) {
    throw CommError{"ARGUMENT", "[commCreate] rank " + std::to_string(rank) + " of " +
                                    std::to_string(world_size) + ": shared memory takes 1 to " +
                                    std::to_string(kMaxRanks) + " ranks, counted from 0"};
  }
  if (!(timeout_seconds > 0)) throw CommError{"ARGUMENT", "[commCreate] timeoutSeconds must be above 0"};
  most_spin_ = most_spin(world_size);
  spin_microseconds_ = most_spin_;
  nonce_ = random64();
  arena_ = std::make_unique<Arena>(id, rank, sizeof(Control));
  peers_.resize(static_cast<size_t>(world_size));
  Peer &self = peers_[static_cast<size_t>(rank)];
  self.mapping = {arena_->base(), arena_->bytes()};
  self.pid = getpid();
  self.started = process_start(self.pid);
  Control &own = control(rank);
  own.version = kVersion;
  own.rank = static_cast<uint32_t>(rank);
  own.world_size = static_cast<uint32_t>(world_size);
  own.job = hash64(id);
  own.nonce = nonce_;
  own.magic = kMagic;
}

Job::~Job() {
  control(rank_).left.store(1, std::memory_order_release);
  for (size_t r = 0; r < peers_.size(); ++r) {
    if (peers_[r].pidfd >= 0) close(peers_[r].pidfd);
    if (static_cast<int>(r) != rank_) unmap(peers_[r].mapping);
  }
}

std::string Job::facts() const {
  const Peer &self = peers_[static_cast<size_t>(rank_)];
  std::ostringstream text;
  text << "zeroshard-shm version=" << kVersion << " rank=" << rank_ << " world=" << world_size_
       << " pid=" << self.pid << " started=" << self.started << " bytes=" << arena_->bytes()
       << " job=" << hex(hash64(id_)) << " nonce=" << hex(nonce_) << " boot=" << boot_id()
       << " host=" << host_name();
  if (arena_->name().empty()) text << " fd=" << arena_->fd();
  else text << " name=" << arena_->name();
  return text.str();
}

void Job::map_peer_of(int rank, const std::string &text) {
  const Facts facts = parse(text);
  const auto refuse = [&](const std::string &why) {
    fail("RENDEZVOUS", "[commConnect] rank " + std::to_string(rank) + ": " + why);
  };
  if (text.rfind("zeroshard-shm ", 0) != 0) refuse("its facts are not those of shared memory");
  if (number(facts, "version") != kVersion) refuse("it runs another version of zeroshard");
  if (facts.find("boot")->second != boot_id()) {
    refuse("it runs on host " + facts.find("host")->second + ", this is " + host_name() +
           "; shared memory reaches one host only");
  }
  if (number(facts, "rank") != static_cast<uint64_t>(rank)) refuse("these are facts of rank " + facts.find("rank")->second);
  if (number(facts, "world") != static_cast<uint64_t>(world_size_)) {
    refuse("it counts " + facts.find("world")->second + " ranks, this one " + std::to_string(world_size_));
  }
  if (number(facts, "job", 16) != hash64(id_)) refuse("it belongs to another job");
  if (rank == rank_) return;

  Peer &peer = peers_[static_cast<size_t>(rank)];
  peer.pid = static_cast<int>(number(facts, "pid"));
  peer.started = number(facts, "started");
  peer.pidfd = open_pidfd(peer.pid);
  if (!process_alive(peer.pid, peer.started)) refuse("its process (pid " + std::to_string(peer.pid) + ") is gone");
  const auto name = facts.find("name");
  const bool named = name != facts.end();
  const std::string path = named ? name->second
                                 : "/proc/" + std::to_string(peer.pid) + "/fd/" + std::to_string(number(facts, "fd"));
  try {
    peer.mapping = map_peer(path, named, number(facts, "bytes"));
  } catch (const std::string &why) {
    refuse(why);
  }
  const Control &control = this->control(rank);
  if (control.magic != kMagic || control.job != hash64(id_) || control.nonce != number(facts, "nonce", 16)) {
    refuse("the memory at " + path + " is of another job or another run");
  }
}

void Job::connect(const std::vector<std::string> &facts) {
  check();
  if (connected()) fail("RENDEZVOUS", "[commConnect] called twice");
  if (facts.size() != peers_.size()) {
    fail("RENDEZVOUS", "[commConnect] facts of " + std::to_string(facts.size()) + " ranks, expected " +
                           std::to_string(world_size_));
  }
  for (const std::string &text : facts) {
    const Facts all = parse(text);
    for (const char *key : {"boot", "host", "rank", "world"}) {
      if (!all.count(key)) fail("RENDEZVOUS", "[commConnect] damaged facts: '" + text + "'");
    }
  }
  for (int r = 0; r < world_size_; ++r) map_peer_of(r, facts[static_cast<size_t>(r)]);
  connected_.store(true, std::memory_order_release);
  // An abort() that came meanwhile must reach the peers too.
  if (early_.load(std::memory_order_acquire)) {
    const CommError early = early_error_;
    fail(early.code, early.message);
  }
}

}  // namespace zs::shm
