// This rank's process groups as the runtime sees them: the transport, which group has which members,
// and the checks that need no peer. Groups of one member need no transport: output = input.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../comm/group.h"
#include "error.h"
#include "stream.h"

namespace zs {

inline constexpr int kNumCollectives = 8;
extern const char *const kCollectiveNames[kNumCollectives];

// Where the job's stream works (nullptr: on the host), and which tensors lie on that device.
struct CollectivePlace {
  DeviceStream *device = nullptr;
  bool output = false, input = false;
};

// What collectives between devices need; without a backend the host's transport is all there is.
struct DeviceTransport {
  const zs_backend *backend = nullptr;
  std::string uuid;
  std::function<void(const CommError &)> lost;
};

class Communicator {
 public:
  // Without create() there is one group, of one member.
  std::string create(int rank, int world_size, const std::string &job_id, double timeout_seconds,
                     const DeviceTransport &device);
  void connect(const std::vector<std::string> &facts);
  int group(const std::vector<int> &ranks);
  bool link(int group, int from, int to);  // ProcessGroup::link
  bool window(int group, void *data, size_t bytes);  // ProcessGroup::window
  void drop_window(int group, void *data);           // of one that is
  void abort(const Error &error);
  void destroy();
  std::shared_ptr<ProcessGroup> transport() const { return state_ ? state_->transport : nullptr; }

  // A collective over ranges (data == nullptr: absent). `detail`: count per rank, root or peer, as
  // the kind has it. Throws where they do not fit each other; the job does the work.
  std::unique_ptr<Job> collective(Collective kind, int group, const zs_tensor &output,
                                  const zs_tensor &input, double detail, int64_t tag, bool average,
                                  const CollectivePlace &place);
  bool created() const { return created_; }

  struct Group {
    int size = 1;
    int rank = 0;            // this rank in the group
    int transport_id = -1;   // -1: one member
  };
  struct State {
    std::shared_ptr<ProcessGroup> transport;  // nullptr: a world of one
    std::mutex lock;
    std::unique_ptr<Error> aborted;  // guarded by the lock
    void run(const CollectiveCall &call, const Group &group, size_t bytes, const CollectivePlace &place);
    void exchange(const CollectiveCall &call, const Group &group, size_t bytes, const CollectivePlace &place);
  };

 private:
  CollectiveCall checked(Collective kind, const Group &group, const zs_tensor &output,
                         const zs_tensor &input, double detail) const;

  std::shared_ptr<State> state_ = std::make_shared<State>();
  std::vector<Group> groups_ = {Group{}};
  int rank_ = 0, world_size_ = 1;
  bool created_ = false, connected_ = false;
};

}  // namespace zs
