// The process group of ranks with a device each: collectives between devices where the backend has them, messages
// where a link was made, the rest (barriers, tensors in host memory, groups in another order) through the host's group,
// which also carries the ids that the devices' communicators are made from. Where two ranks share a device, or a rank has no
// library, all go through the host; `note` says why.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "../../backend/collectives.h"
#include "../group.h"
#include "link.h"
#include "registered.h"

namespace zs {

class DeviceGroup final : public ProcessGroup {
 public:
  // `lost` is called once, on any thread, when a collective between devices failed or took too long: what was under
  // way has ended, unfinished, and results that follow from it are not to be trusted.
  using Lost = std::function<void(const CommError &)>;
  DeviceGroup(std::unique_ptr<ProcessGroup> host, const zs_backend &backend, const std::string &device_uuid, int rank,
              int world_size, double timeout_seconds, Lost lost);
  ~DeviceGroup() override;

  // Of the device.
  void *arena_allocate(size_t bytes) override { return registered_.allocate(bytes); }
  void arena_release(void *data, size_t bytes) override { registered_.release(data, bytes); }
  bool window(int group, void *data, size_t bytes) override;
  void drop_window(int group, void *data) override;
  std::string facts() const override;
  void connect(const std::vector<std::string> &facts) override;
  int group(const std::vector<int> &ranks) override;  // nothing may be queued or under way
  bool link(int group, int from, int to) override;
  void run(const CollectiveCall &call) override;
  void abort(const CommError &error) override;
  bool takes(const CollectiveCall &call) const override;
  void check(bool waiting) override { host_->check(waiting); }
  std::string note() const override { return note_.empty() ? registered_.note() : note_; }

 private:
  struct Member {
    void *communicator = nullptr;
    int size = 0;
  };
  void wait_ready(void *communicator, const std::string &what);
  void wait_made(void *communicator, const std::string &what);
  const Member *find(int group) const;
  Link *find_link(const CollectiveCall &call) const;
  void *make_pair(int host_group, bool sends);
  void watch();
  void fail(const CommError &error);
  void give_up(const CommError &error);

  const std::unique_ptr<ProcessGroup> host_;
  const zs_backend &backend_;
  const zs_collectives *const collectives_;
  const int rank_, world_size_;
  const double timeout_;
  const Lost lost_;
  std::string facts_, note_;
  Registered registered_;

  mutable std::mutex lock_;  // of members_, links_ and of what failed
  std::map<int, std::unique_ptr<Member>> members_;  // by group; none: through the host
  std::map<int, std::vector<int>> ranks_;           // of each group, of the world
  std::map<std::tuple<int, int, bool>, std::unique_ptr<Link>> links_;  // by group, peer, whether this rank sends
  std::unique_ptr<CommError> failed_;
  std::mutex queueing_;  // one exchange at a time, in one order
  std::atomic<bool> stop_{false};
  std::thread watcher_;
};

}  // namespace zs
