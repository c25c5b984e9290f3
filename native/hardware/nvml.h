// What NVIDIA's management library tells of the machine's GPUs: names, memory, clocks, power, heat, links, who uses
// them. libnvidia-ml.so.1 comes with the driver and is opened at first need; no CUDA, no device is opened.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace zs::nvml {

struct Process {
  uint32_t pid = 0;
  std::optional<uint64_t> bytes;  // absent where the driver does not tell
};

// A reading that a GPU or the caller's rights do not give is absent, and named in `missing`.
struct Gpu {
  int index = 0;  // NVML's, by PCI address; CUDA's order may be another
  std::string name, uuid;  // uuid: "GPU-01234567-89ab-..."
  std::optional<uint64_t> total_bytes, used_bytes;
  std::optional<uint32_t> sm_clock, memory_clock, max_sm_clock, max_memory_clock;  // MHz
  std::optional<double> power, power_limit;                                        // W
  std::optional<double> energy;                                                    // J since the driver was loaded
  std::optional<uint32_t> temperature, slowdown_temperature;                       // degrees Celsius
  std::optional<uint32_t> busy, memory_busy;  // per cent of the last sample period, up to 1 s
  std::optional<uint32_t> pcie_generation, pcie_width, max_pcie_generation, max_pcie_width;
  uint32_t nvlinks = 0, nvlink_version = 0;  // active ones
  std::optional<uint64_t> throttle;          // bits of throttle_names()
  std::optional<std::vector<Process>> processes;
  std::vector<std::string> missing;  // "power: Not Supported"
};

struct State {
  std::string reason;  // why there is nothing else; empty: there is
  std::string path, version, driver;
  int cuda = 0;  // the newest that the driver can do: 13000 for 13.0
  std::vector<Gpu> gpus;
};

// Any thread. Some milliseconds a GPU.
State read();
std::vector<std::string> throttle_names(uint64_t bits);

}  // namespace zs::nvml
