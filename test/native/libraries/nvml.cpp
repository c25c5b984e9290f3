// A management library of two GPUs, for tests: one tells all, the other little. It checks what it is asked.
// MOCK_NVML: "broken" does not start, "lost" has one GPU that is not to be had.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

bool started = false;
const char *mode() {
  const char *value = getenv("MOCK_NVML");
  return value ? value : "";
}
int first, second;

constexpr int kUninitialized = 1, kWrong = 2, kNotSupported = 3, kNoPermission = 4, kSmall = 7, kNoDriver = 9, kLost = 15;

// 0 for the first GPU, 1 for the second.
int check(void *device, int &which) {
  if (!started) return kUninitialized;
  if (device != &first && device != &second) return kWrong;
  which = device == &second;
  return 0;
}

int tell(void *device, unsigned *value, unsigned told) {
  int which;
  if (int status = check(device, which)) return status;
  if (which) return kNotSupported;
  *value = told;
  return 0;
}

int words(char *into, unsigned size, const char *text) {
  if (strlen(text) + 1 > size) return kSmall;
  strcpy(into, text);
  return 0;
}

struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};
struct Process {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu, compute;
};

}  // namespace

extern "C" {

int nvmlInit_v2() {
  if (!strcmp(mode(), "broken")) return kNoDriver;
  started = true;
  return 0;
}
const char *nvmlErrorString(int status) {
  switch (status) {
    case kNotSupported: return "Not Supported";
    case kNoPermission: return "Insufficient Permissions";
    case kNoDriver: return "Driver Not Loaded";
    case kLost: return "GPU is lost";
    default: return "Unknown Error";
  }
}
int nvmlSystemGetDriverVersion(char *into, unsigned size) { return words(into, size, "580.65.06"); }
int nvmlSystemGetNVMLVersion(char *into, unsigned size) { return words(into, size, "13.580.65.06"); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return *version = 13000, 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { return *count = 2, started ? 0 : kUninitialized; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (index > 1) return kWrong;
  if (index == 1 && !strcmp(mode(), "lost")) return kLost;
  *device = index ? &second : &first;
  return 0;
}
int nvmlDeviceGetName(void *device, char *into, unsigned size) {
  return words(into, size, device == &first ? "Mock H200" : "Mock card of little words");
}
int nvmlDeviceGetUUID(void *device, char *into, unsigned size) {
  return words(into, size, device == &first ? "GPU-00112233-4455-6677-8899-aabbccddeeff" : "GPU-second");
}
int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
  int which;
  if (int status = check(device, which)) return status;
  *memory = {150754820096ULL, 150000000000ULL, 754820096ULL};
  return 0;
}
int nvmlDeviceGetClockInfo(void *device, int type, unsigned *clock) {
  return type == 1 ? tell(device, clock, 1755) : type == 2 ? tell(device, clock, 3201) : kWrong;
}
int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *clock) {
  return type == 1 ? tell(device, clock, 1980) : type == 2 ? tell(device, clock, 3201) : kWrong;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { return tell(device, milliwatts, 412345); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) { return tell(device, milliwatts, 700000); }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
  int which;
  if (int status = check(device, which)) return status;
  if (which) return kNotSupported;
  *millijoules = 9876543210ULL;
  return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) {
  return sensor == 0 ? tell(device, degrees, 56) : kWrong;
}
int nvmlDeviceGetTemperatureThreshold(void *device, int threshold, unsigned *degrees) {
  return threshold == 1 ? tell(device, degrees, 93) : kWrong;
}
int nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) {
  int which;
  if (int status = check(device, which)) return status;
  if (which) return kNotSupported;
  *rates = {97, 41};
  return 0;
}
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *value) { return tell(device, value, 4); }
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *value) { return tell(device, value, 8); }
int nvmlDeviceGetMaxPcieLinkGeneration(void *device, unsigned *value) { return tell(device, value, 5); }
int nvmlDeviceGetMaxPcieLinkWidth(void *device, unsigned *value) { return tell(device, value, 16); }
int nvmlDeviceGetNvLinkState(void *device, unsigned link, int *active) {
  int which;
  if (int status = check(device, which)) return status;
  if (which) return kNotSupported;
  if (link >= 18) return kWrong;
  *active = link != 7;
  return 0;
}
int nvmlDeviceGetNvLinkVersion(void *, unsigned, unsigned *version) { return *version = 4, 0; }
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
  int which;
  if (int status = check(device, which)) return status;
  if (which) return kNotSupported;
  *reasons = 0x4 | 0x40;
  return 0;
}
// 20 processes: more than a first guess has room for.
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Process *processes) {
  int which;
  if (int status = check(device, which)) return status;
  if (which) return kNoPermission;
  unsigned room = *count;
  *count = 20;
  if (room < 20) return kSmall;
  for (unsigned i = 0; i < 20; i++) processes[i] = {1000 + i, i == 19 ? ~0ULL : (i + 1) << 20, 0, 0};
  return 0;
}

}  // extern "C"
