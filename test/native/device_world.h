// Ranks with a faked device each, as threads of one process: their runtimes, and short calls.
#pragma once
#include "../../native/core/runtime.h"
#include "fake_collectives.h"
#include "processes.h"

namespace zs::world_test {

using zs::fake::network;

inline std::atomic<bool> one_device{false};

inline int32_t device_info(int32_t, zs_device_info *info, char *) {
  static std::atomic<int> count{0};
  *info = {};
  snprintf(info->uuid, sizeof info->uuid, "uuid-%d", one_device ? 0 : ++count);
  return ZS_OK;
}

inline zs_kernel kernels[ZS_OP_COUNT];

inline int32_t fill(zs_call *call) {
  zs_tensor y = call->tensors[0];
  float value = static_cast<float>(call->scalars[0]);
  zs::fake::queue(static_cast<zs::fake::FakeStream *>(call->stream),
                  [=] { std::fill_n(zs::fake::floats(y.data, y.count), y.count, value); });
  return ZS_OK;
}

inline const bool has_fill = (kernels[ZS_OP_fill] = fill, true);

inline zs_backend backend() {
  zs_backend made = zs::fake::table(kernels);
  made.device_info = device_info;
  made.collectives = &zs::fake::fake_collectives;
  return made;
}

// Ranks as threads, and the exchange of facts.
class World {
 public:
  explicit World(int size) : facts_(static_cast<size_t>(size)) {}
  void run(double timeout, const std::function<void(zs::Runtime &, int)> &body) {
    static int count = 0;
    std::string job = "group-" + std::to_string(getpid()) + "-" + std::to_string(++count);
    int size = static_cast<int>(facts_.size());
    std::vector<std::thread> ranks;
    for (int r = 0; r < size; r++)
      ranks.emplace_back([=, this] {
        zs::Runtime runtime(backend());
        std::string mine = runtime.comm_create(r, size, job, timeout);
        {
          std::unique_lock guard(lock_);
          facts_[static_cast<size_t>(r)] = mine;
          arrived_++;
          moved_.notify_all();
          moved_.wait(guard, [&] { return arrived_ >= size; });
        }
        runtime.communicator().connect(facts_);
        try {
          body(runtime, r);
        } catch (const zs::Error &error) {
          fprintf(stderr, "rank %d: %s %s\n", r, error.code.c_str(), error.message.c_str());
          exit(1);
        }
      });
    for (std::thread &rank : ranks) rank.join();
    CHECK(network.num_live == 0 && zs::fake::device.live_events == 0 && zs::fake::device.regions.empty());
  }

 private:
  std::mutex lock_;
  std::condition_variable moved_;
  std::vector<std::string> facts_;
  int arrived_ = 0;
};

inline int64_t allocate(zs::Runtime &runtime, int64_t count, int category = 3) {
  double packet[] = {ZS_F32, static_cast<double>(category), 1, 1, static_cast<double>(count)};
  return runtime.alloc(packet);
}

inline void set(zs::Runtime &runtime, int64_t handle, double value) {
  double packet[] = {ZS_OP_fill, 0, static_cast<double>(handle), value};
  runtime.run(packet);
}

inline void collective(zs::Runtime &runtime, Collective kind, int group, int64_t output, int64_t input, double detail,
                bool average = false, int stream = 1, int64_t tag = 0) {
  double packet[] = {static_cast<double>(kind), static_cast<double>(group), static_cast<double>(stream),
                     static_cast<double>(output), static_cast<double>(input), detail,
                     static_cast<double>(tag), average ? 1.0 : 0.0};
  runtime.collective(packet);
}

inline std::vector<float> read(zs::Runtime &runtime, int64_t handle, int64_t count, int stream = 0) {
  std::vector<float> got(static_cast<size_t>(count));
  runtime.read_now(static_cast<double>(handle), got.data(), got.size() * 4, stream);
  return got;
}

inline void check_all(const std::vector<float> &values, double wanted) {
  for (float value : values) CHECK(value == static_cast<float>(wanted));
}

}  // namespace zs::world_test
