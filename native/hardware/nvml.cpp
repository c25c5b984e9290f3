#include "nvml.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace zs::nvml {

namespace {

// Of nvml.h 13.0, what is used here.
using Device = void *;
struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};
struct ProcessInfo {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu_instance, compute_instance;
};
constexpr int kSuccess = 0, kInsufficientSize = 7;
constexpr int kSmClock = 1, kMemoryClock = 2;
constexpr int kDie = 0, kSlowdown = 1;
constexpr unsigned kMaxLinks = 36;
constexpr unsigned long long kUnknown = ~0ULL;

struct Library {
  void *handle = nullptr;
  std::string path, reason;
  std::mutex lock;
  template <class Function>
  Function find(const char *name) const {
    return reinterpret_cast<Function>(dlsym(handle, name));
  }
  std::string error(int status) const {
    auto words = find<const char *(*)(int)>("nvmlErrorString");
    const char *told = words ? words(status) : nullptr;
    return told ? told : "error " + std::to_string(status);
  }
};

constexpr const char *kCure = "; it comes with the NVIDIA driver, or set ZEROSHARD_NVML to its path";

void open(Library &library) {
  const char *given = getenv("ZEROSHARD_NVML");
  std::vector<std::string> paths = {"libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"};
  if (given && given[0]) paths = {given};
  for (const std::string &path : paths)
    if ((library.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))) break;
  if (!library.handle) {
    const char *why = given && given[0] ? dlerror() : nullptr;
    library.reason = std::string(why ? why : "libnvidia-ml.so.1 is not found") + kCure;
    return;
  }
  auto start = library.find<int (*)()>("nvmlInit_v2");
  Dl_info place;
  if (start && dladdr(reinterpret_cast<void *>(start), &place) && place.dli_fname) library.path = place.dli_fname;
  if (!start) library.reason = "NVML has no nvmlInit_v2; update the NVIDIA driver";
  else if (int status = start()) library.reason = "NVML does not start: " + library.error(status);
}

// Stays open. Where it failed to start the next call tries again: a driver may have been loaded since.
Library &opened() {
  static Library *library = new Library;
  std::lock_guard guard(library->lock);
  if (!library->handle || !library->reason.empty()) {
    library->reason.clear();
    open(*library);
  }
  return *library;
}

// Readings of one GPU, each by its function's name.
class Reader {
 public:
  Reader(const Library &library, Device device, Gpu &gpu) : library_(library), device_(device), gpu_(gpu) {}

  template <class Value, class... Arguments>
  bool read(const char *what, const char *function, Value &into, Arguments... arguments) {
    auto call = library_.find<int (*)(Device, Arguments..., Value *)>(function);
    int status = call ? call(device_, arguments..., &into) : -1;
    if (status == kSuccess) return true;
    gpu_.missing.push_back(std::string(what) + ": " + (call ? library_.error(status) : "this driver is too old"));
    return false;
  }
  template <class... Arguments>
  std::optional<uint32_t> number(const char *what, const char *function, Arguments... arguments) {
    unsigned value = 0;
    return read(what, function, value, arguments...) ? std::optional<uint32_t>(value) : std::nullopt;
  }
  std::optional<double> thousandths(const char *what, const char *function) {
    std::optional<uint32_t> value = number(what, function);
    return value ? std::optional<double>(*value / 1000.0) : std::nullopt;
  }
  std::string words(const char *what, const char *function) {
    auto call = library_.find<int (*)(Device, char *, unsigned)>(function);
    char value[96] = "";
    if (!call || call(device_, value, sizeof value) != kSuccess) gpu_.missing.push_back(std::string(what) + ": not told");
    return value;
  }
  bool has(const char *function) const { return library_.find<void *>(function); }

  void links();
  void processes();

 private:
  const Library &library_;
  Device device_;
  Gpu &gpu_;
};

// A GPU without NVLink answers that it does not support the question: that is no missing reading.
void Reader::links() {
  auto state = library_.find<int (*)(Device, unsigned, int *)>("nvmlDeviceGetNvLinkState");
  auto version = library_.find<int (*)(Device, unsigned, unsigned *)>("nvmlDeviceGetNvLinkVersion");
  for (unsigned link = 0; state && link < kMaxLinks; link++) {
    int active = 0;
    if (state(device_, link, &active) != kSuccess || !active) continue;
    gpu_.nvlinks++;
    unsigned found = 0;
    if (version && version(device_, link, &found) == kSuccess) gpu_.nvlink_version = found;
  }
}

void Reader::processes() {
  auto call = library_.find<int (*)(Device, unsigned *, ProcessInfo *)>("nvmlDeviceGetComputeRunningProcesses_v3");
  std::vector<ProcessInfo> found(16);
  unsigned count = 0;
  int status = kInsufficientSize;
  // There may be more by the time of the second call.
  for (int tries = 0; call && status == kInsufficientSize && tries < 4; tries++) {
    if (tries > 0) found.resize(count + 8);
    count = static_cast<unsigned>(found.size());
    status = call(device_, &count, found.data());
  }
  if (!call || status != kSuccess) {
    gpu_.missing.push_back("processes: " + (call ? library_.error(status) : "this driver is too old"));
    return;
  }
  gpu_.processes.emplace();
  for (unsigned i = 0; i < count; i++) {
    std::optional<uint64_t> bytes;
    if (found[i].bytes != kUnknown) bytes = found[i].bytes;
    gpu_.processes->push_back({found[i].pid, bytes});
  }
}

Gpu read_gpu(const Library &library, unsigned index, Device device) {
  Gpu gpu;
  gpu.index = static_cast<int>(index);
  Reader from(library, device, gpu);
  gpu.name = from.words("name", "nvmlDeviceGetName");
  gpu.uuid = from.words("uuid", "nvmlDeviceGetUUID");
  Memory memory = {};
  if (from.read("memory", "nvmlDeviceGetMemoryInfo", memory)) {
    gpu.total_bytes = memory.total;
    gpu.used_bytes = memory.used;
  }
  gpu.sm_clock = from.number("clocks", "nvmlDeviceGetClockInfo", kSmClock);
  gpu.memory_clock = from.number("memory clock", "nvmlDeviceGetClockInfo", kMemoryClock);
  gpu.max_sm_clock = from.number("highest clock", "nvmlDeviceGetMaxClockInfo", kSmClock);
  gpu.max_memory_clock = from.number("highest memory clock", "nvmlDeviceGetMaxClockInfo", kMemoryClock);
  gpu.power = from.thousandths("power", "nvmlDeviceGetPowerUsage");
  gpu.power_limit = from.thousandths("power limit", "nvmlDeviceGetEnforcedPowerLimit");
  unsigned long long energy = 0, throttle = 0;
  if (from.read("energy", "nvmlDeviceGetTotalEnergyConsumption", energy))
    gpu.energy = static_cast<double>(energy) / 1000;
  gpu.temperature = from.number("temperature", "nvmlDeviceGetTemperature", kDie);
  gpu.slowdown_temperature = from.number("slowdown temperature", "nvmlDeviceGetTemperatureThreshold", kSlowdown);
  Utilization busy = {};
  if (from.read("utilization", "nvmlDeviceGetUtilizationRates", busy)) {
    gpu.busy = busy.gpu;
    gpu.memory_busy = busy.memory;
  }
  gpu.pcie_generation = from.number("PCIe", "nvmlDeviceGetCurrPcieLinkGeneration");
  gpu.pcie_width = from.number("PCIe width", "nvmlDeviceGetCurrPcieLinkWidth");
  gpu.max_pcie_generation = from.number("best PCIe", "nvmlDeviceGetMaxPcieLinkGeneration");
  gpu.max_pcie_width = from.number("best PCIe width", "nvmlDeviceGetMaxPcieLinkWidth");
  from.links();
  const char *newer = "nvmlDeviceGetCurrentClocksEventReasons", *older = "nvmlDeviceGetCurrentClocksThrottleReasons";
  if (from.read("throttle reasons", from.has(newer) ? newer : older, throttle)) gpu.throttle = throttle;
  from.processes();
  return gpu;
}

std::string words_of(const Library &library, const char *function) {
  auto call = library.find<int (*)(char *, unsigned)>(function);
  char value[96] = "";
  return call && call(value, sizeof value) == kSuccess ? value : "";
}

}  // namespace

std::vector<std::string> throttle_names(uint64_t bits) {
  constexpr const char *names[] = {"idle",           "application clocks", "power cap",      "hardware slowdown", "sync boost",
                                   "software heat", "hardware heat",      "power brake", "display clocks"};
  constexpr size_t count = sizeof names / sizeof *names;
  std::vector<std::string> found;
  for (size_t i = 0; i < 64; i++)
    if (bits >> i & 1) found.push_back(i < count ? names[i] : "reason " + std::to_string(i));
  return found;
}

State read() {
  Library &library = opened();
  State state;
  state.path = library.path;
  state.reason = library.reason;
  if (!state.reason.empty()) return state;
  state.driver = words_of(library, "nvmlSystemGetDriverVersion");
  state.version = words_of(library, "nvmlSystemGetNVMLVersion");
  if (auto cuda = library.find<int (*)(int *)>("nvmlSystemGetCudaDriverVersion_v2")) cuda(&state.cuda);
  auto count_of = library.find<int (*)(unsigned *)>("nvmlDeviceGetCount_v2");
  auto handle_of = library.find<int (*)(unsigned, Device *)>("nvmlDeviceGetHandleByIndex_v2");
  unsigned count = 0;
  int status = count_of && handle_of ? count_of(&count) : -1;
  if (status != kSuccess) {
    state.reason = "NVML does not count the GPUs: " + (count_of ? library.error(status) : "this driver is too old");
    return state;
  }
  for (unsigned i = 0; i < count; i++) {
    Device device = nullptr;
    status = handle_of(i, &device);
    if (status == kSuccess) {
      state.gpus.push_back(read_gpu(library, i, device));
      continue;
    }
    Gpu lost;  // fallen off the bus, or not this user's
    lost.index = static_cast<int>(i);
    lost.missing.push_back("GPU: " + library.error(status));
    state.gpus.push_back(lost);
  }
  return state;
}

}  // namespace zs::nvml
