// A runtime on the faked device, for the tests of the core: kernels of the device and of the CPU, and short calls.
#pragma once
#include "../../native/core/runtime.h"
#include "fake_device.h"
#include "processes.h"

namespace zs::device_test {

using zs::fake::device;

template <class Body>
inline zs::Error error_of(Body body) {
  try {
    body();
  } catch (const zs::Error &error) {
    return error;
  }
  return {};
}

inline bool contains(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

inline uint64_t mix(uint64_t y, uint64_t a, uint64_t b) { return 3 * a + 5 * b + 7 * y; }

inline void mix_all(uint64_t *y, const uint64_t *a, const uint64_t *b, int64_t count) {
  for (int64_t i = 0; i < count; i++) y[i] = mix(y[i], a[i], b ? b[i] : 0);
}

inline uint64_t *values(const zs_tensor &t) {
  return t.data ? reinterpret_cast<uint64_t *>(zs::fake::real(t.data, static_cast<size_t>(t.count) * 8)) : nullptr;
}

inline zs::fake::FakeStream *stream_of(zs_call *call) {
  CHECK(zs::fake::attached && call->context == call->stream);  // the stream's own context
  return static_cast<zs::fake::FakeStream *>(call->stream);
}

inline int32_t device_mix(zs_call *call) {
  zs_tensor y = call->tensors[0], a = call->tensors[1], b = call->tensors[2];
  double delay = call->scalars[0];
  zs::fake::queue(stream_of(call), [=] {
    if (delay > 0) usleep(static_cast<useconds_t>(delay));
    mix_all(values(y), values(a), values(b), y.count);
  });
  return ZS_OK;
}

inline int32_t host_mix(zs_call *call) {
  const zs_tensor *t = call->tensors;
  CHECK(!call->stream);
  mix_all(static_cast<uint64_t *>(t[0].data), static_cast<const uint64_t *>(t[1].data),
          static_cast<const uint64_t *>(t[2].data), t[0].count);
  return ZS_OK;
}

inline std::atomic<int> num_fills{0};  // launched

inline int32_t device_fill(zs_call *call) {
  num_fills++;
  zs_tensor y = call->tensors[0];
  uint64_t value = static_cast<uint64_t>(call->scalars[0]);
  zs::fake::queue(stream_of(call), [=] { std::fill_n(values(y), y.count, value); });
  return ZS_OK;
}

inline int32_t host_fill(zs_call *call) {
  std::fill_n(static_cast<uint64_t *>(call->tensors[0].data), call->tensors[0].count,
              static_cast<uint64_t>(call->scalars[0]));
  return ZS_OK;
}

// affine: goes wrong on the device; cast: cannot be launched; gather: names itself.
inline int32_t failing_later(zs_call *call) {
  zs::fake::fail_later(stream_of(call), ZS_DEVICE_ERROR, "an illegal memory access was encountered");
  return ZS_OK;
}

inline int32_t failing_launch(zs_call *call) {
  snprintf(call->error, sizeof call->error, "invalid configuration argument");
  return ZS_DEVICE_ERROR;
}

inline int32_t reporting(zs_call *call) {
  zs::fake::fail_later(stream_of(call), ZS_BAD_ARGUMENT, "[gather] id 7 is outside [0, 5)");
  return ZS_OK;
}

inline zs_kernel device_kernels[ZS_OP_COUNT], host_kernels[ZS_OP_COUNT];

inline zs_backend host_backend() {
  zs_backend host = {};
  host.name = "cpu";
  host.host_memory = 1;
  host.kernels = host_kernels;
  return host;
}

inline const zs_backend host = host_backend();

inline zs_backend fake() {
  device_kernels[ZS_OP_binary] = device_mix;
  device_kernels[ZS_OP_fill] = device_fill;
  device_kernels[ZS_OP_affine] = failing_later;
  device_kernels[ZS_OP_cast] = failing_launch;
  device_kernels[ZS_OP_gather] = reporting;
  host_kernels[ZS_OP_binary] = host_mix;
  host_kernels[ZS_OP_fill] = host_fill;
  return zs::fake::table(device_kernels);
}

constexpr int kDevice = 3, kOnHost = zs::kHost;

inline int64_t allocate(zs::Runtime &runtime, int64_t count, int category = kDevice, bool zero = true) {
  double packet[] = {ZS_I64, static_cast<double>(category), zero ? 1.0 : 0.0, 1, static_cast<double>(count)};
  return runtime.alloc(packet);
}

inline int64_t view(zs::Runtime &runtime, int64_t handle, int64_t offset, int64_t count) {
  double packet[] = {static_cast<double>(handle), static_cast<double>(offset), ZS_I64, 1, static_cast<double>(count)};
  return runtime.view(packet);
}

inline void release(zs::Runtime &runtime, int64_t handle) {
  double packet[] = {static_cast<double>(handle)};
  runtime.free(packet);
}

inline void run(zs::Runtime &runtime, zs_op op, int stream, std::initializer_list<int64_t> handles, double scalar = 0) {
  double packet[40] = {static_cast<double>(op), static_cast<double>(stream)};
  int at = 2;
  for (int64_t handle : handles) packet[at++] = static_cast<double>(handle);
  packet[at] = scalar;
  runtime.run(packet);
}

inline void collective(zs::Runtime &runtime, zs::Collective kind, int stream, int64_t output, int64_t input, double detail) {
  double packet[] = {static_cast<double>(kind), 0, static_cast<double>(stream), static_cast<double>(output),
                     static_cast<double>(input), detail, 0, 0};
  runtime.collective(packet);
}

using Values = std::vector<uint64_t>;

inline Values read(zs::Runtime &runtime, int64_t handle, int64_t count, int stream = 0) {
  Values got(static_cast<size_t>(count));
  runtime.read_now(static_cast<double>(handle), got.data(), got.size() * 8, stream);
  return got;
}

inline void write(zs::Runtime &runtime, int64_t handle, const Values &given, int stream) {
  runtime.write(static_cast<double>(handle), given.data(), given.size() * 8, stream);
}

inline void nothing_is_left() {
  CHECK(device.live_events.load() == 0 && device.live_moments.load() == 0);
  CHECK(device.regions.empty() && device.streams.empty() && device.taken == 0);
}

}  // namespace zs::device_test
