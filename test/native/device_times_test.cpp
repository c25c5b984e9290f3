// Times of a trace on a device: those of the device's work, not of its launch, on the host's clock though the device's
// own begins elsewhere and runs at another speed. On the faked device, whose kernels note when they truly ran.
#include <algorithm>

#include "device_parts.h"

namespace {

using namespace zs::device_test;

struct Ran {
  uint64_t start, end;
};
std::vector<Ran> truth;  // by the host's clock; of the compute stream alone

int32_t noting(zs_call *call) {
  double microseconds = call->scalars[0];
  zs::fake::queue(stream_of(call), [=] {
    uint64_t start = zs::fake::host_clock();
    usleep(static_cast<useconds_t>(microseconds));
    truth.push_back({start, zs::fake::host_clock()});
  });
  return ZS_OK;
}

zs_backend noting_device() {
  zs_backend made = fake();
  device_kernels[ZS_OP_binary] = noting;
  return made;
}

constexpr double kMillisecond = 1e6;

double apart(uint64_t a, uint64_t b) { return std::abs(static_cast<double>(a) - static_cast<double>(b)); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::vector<zs::TraceRecord> of_kernels(zs::Runtime &runtime) {
  uint64_t dropped;
  std::vector<zs::TraceRecord> all = runtime.take_trace(&dropped), found;
  CHECK(dropped == 0);
  for (const zs::TraceRecord &record : all)
    if (!strcmp(record.name, "binary")) found.push_back(record);
  return found;
}

void set_clock(double rate) {
  device.epoch = zs::fake::host_clock() - 977'000'000'000ULL;
  device.clock_rate = rate;
}

void times_are_those_of_the_device(double rate) {
  set_clock(rate);
  truth.clear();
  {
    zs::Runtime runtime(noting_device(), &host);
    int64_t x = allocate(runtime, 8);
    read(runtime, x, 8);
    runtime.start_trace(1000);
    constexpr int kTasks = 40;
    for (int i = 0; i < kTasks; i++) run(runtime, ZS_OP_binary, 0, {x, x, 0}, 3000);
    runtime.synchronize_now(0);
    std::vector<zs::TraceRecord> records = of_kernels(runtime);
    CHECK(records.size() == kTasks && truth.size() == kTasks);
    std::vector<double> starts, ends;
    for (size_t i = 0; i < kTasks; i++) {
      const zs::TraceRecord &record = records[i];
      CHECK(record.queued <= record.launched && record.launched <= record.start && record.start <= record.end);
      CHECK(i == 0 || records[i - 1].end <= record.start);
      starts.push_back(apart(record.start, truth[i].start));
      ends.push_back(apart(record.end, truth[i].end));
    }
    CHECK(median(starts) < 0.5 * kMillisecond && median(ends) < 0.5 * kMillisecond);
    // All were launched long before the last one ran: times of launches would be wrong by this much.
    CHECK(static_cast<double>(records.back().start - records.back().launched) > 90 * kMillisecond);
  }
  nothing_is_left();
}

// The reference is taken anew each half second, and the speed of the clock with it: a clock that is 1 % fast would be 10
// milliseconds away after the first second.
void a_clock_of_another_speed_is_followed() {
  set_clock(1.01);
  truth.clear();
  {
    zs::Runtime runtime(noting_device(), &host);
    int64_t x = allocate(runtime, 8);
    runtime.start_trace(10000);
    std::vector<double> late;
    for (int i = 0; i < 24; i++) {
      for (int j = 0; j < 10; j++) run(runtime, ZS_OP_binary, 0, {x, x, 0}, 10000);
      runtime.synchronize_now(0);
      std::vector<zs::TraceRecord> records = of_kernels(runtime);
      CHECK(records.size() == 10);
      for (size_t j = 0; j < 10 && i >= 12; j++) late.push_back(apart(records[j].start, truth[i * 10 + j].start));
    }
    CHECK(median(late) < kMillisecond);
  }
  nothing_is_left();
}

void what_still_runs_comes_with_a_later_take() {
  set_clock(1);
  truth.clear();
  {
    zs::Runtime runtime(noting_device(), &host);
    int64_t x = allocate(runtime, 8);
    read(runtime, x, 8);
    runtime.start_trace(100);
    run(runtime, ZS_OP_binary, 0, {x, x, 0}, 1000);
    runtime.synchronize_now(0);
    run(runtime, ZS_OP_binary, 0, {x, x, 0}, 300000);
    usleep(20000);
    CHECK(of_kernels(runtime).size() == 1);
    runtime.synchronize_now(0);
    CHECK(of_kernels(runtime).size() == 1);
    // And is forgotten where tracing began anew since.
    run(runtime, ZS_OP_binary, 0, {x, x, 0}, 1000);
    usleep(20000);
    runtime.start_trace(100);
    runtime.synchronize_now(0);
    CHECK(of_kernels(runtime).empty());
    // Without a trace no moments are made.
    runtime.start_trace(0);
    int moments = device.live_moments.load();
    run(runtime, ZS_OP_binary, 0, {x, x, 0}, 1000);
    runtime.synchronize_now(0);
    CHECK(device.live_moments.load() == moments);
  }
  nothing_is_left();
}

// A device that runs far behind: the stream itself reads what has passed, so that moments do not pile up.
void moments_are_given_back_without_a_take() {
  set_clock(1);
  truth.clear();
  {
    zs::Runtime runtime(noting_device(), &host);
    int64_t x = allocate(runtime, 8);
    runtime.start_trace(100000);
    for (int i = 0; i < 4000; i++) {
      run(runtime, ZS_OP_binary, 0, {x, x, 0}, 0);
      if (i % 100 == 99) runtime.synchronize_now(0);
    }
    CHECK(device.live_moments.load() < 1500);
    CHECK(of_kernels(runtime).size() == 4000);
  }
  nothing_is_left();
}

}  // namespace

int main() {
  times_are_those_of_the_device(1);
  times_are_those_of_the_device(1.0002);
  a_clock_of_another_speed_is_followed();
  what_still_runs_comes_with_a_later_take();
  moments_are_given_back_without_a_take();
  puts("device_times_test: ok");
  return 0;
}
