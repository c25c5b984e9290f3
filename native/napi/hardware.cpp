// What NVML tells, as objects; what it does not tell is undefined.
#include "../hardware/nvml.h"

#include "environment.h"

namespace zs::napi {

namespace {

template <class Value>
void set_known(napi_env env, napi_value object, const char *name, const std::optional<Value> &value) {
  if (value) set(env, object, name, make_number(env, static_cast<double>(*value)));
}

napi_value strings(napi_env env, const std::vector<std::string> &given) {
  napi_value list = nullptr;
  napi_create_array_with_length(env, given.size(), &list);
  for (size_t i = 0; i < given.size(); i++)
    napi_set_element(env, list, static_cast<uint32_t>(i), make_string(env, given[i]));
  return list;
}

napi_value describe(napi_env env, const nvml::Gpu &gpu) {
  napi_value result = nullptr;
  napi_create_object(env, &result);
  set(env, result, "index", make_number(env, gpu.index));
  set(env, result, "name", make_string(env, gpu.name));
  set(env, result, "uuid", make_string(env, gpu.uuid));
  set_known(env, result, "totalBytes", gpu.total_bytes);
  set_known(env, result, "usedBytes", gpu.used_bytes);
  set_known(env, result, "smClock", gpu.sm_clock);
  set_known(env, result, "memoryClock", gpu.memory_clock);
  set_known(env, result, "maxSmClock", gpu.max_sm_clock);
  set_known(env, result, "maxMemoryClock", gpu.max_memory_clock);
  set_known(env, result, "power", gpu.power);
  set_known(env, result, "powerLimit", gpu.power_limit);
  set_known(env, result, "energy", gpu.energy);
  set_known(env, result, "temperature", gpu.temperature);
  set_known(env, result, "slowdownTemperature", gpu.slowdown_temperature);
  set_known(env, result, "busy", gpu.busy);
  set_known(env, result, "memoryBusy", gpu.memory_busy);
  set_known(env, result, "pcieGeneration", gpu.pcie_generation);
  set_known(env, result, "pcieWidth", gpu.pcie_width);
  set_known(env, result, "maxPcieGeneration", gpu.max_pcie_generation);
  set_known(env, result, "maxPcieWidth", gpu.max_pcie_width);
  set(env, result, "nvlinks", make_number(env, gpu.nvlinks));
  set(env, result, "nvlinkVersion", make_number(env, gpu.nvlink_version));
  if (gpu.throttle) set(env, result, "throttle", strings(env, nvml::throttle_names(*gpu.throttle)));
  set(env, result, "missing", strings(env, gpu.missing));
  if (!gpu.processes) return result;
  napi_value list = nullptr;
  napi_create_array_with_length(env, gpu.processes->size(), &list);
  for (size_t i = 0; i < gpu.processes->size(); i++) {
    const nvml::Process &process = (*gpu.processes)[i];
    napi_value one = nullptr;
    napi_create_object(env, &one);
    set(env, one, "pid", make_number(env, process.pid));
    set_known(env, one, "bytes", process.bytes);
    napi_set_element(env, list, static_cast<uint32_t>(i), one);
  }
  set(env, result, "processes", list);
  return result;
}

}  // namespace

napi_value hardware(Call &call) {
  napi_env env = call.env;
  nvml::State state = nvml::read();
  napi_value result = nullptr, gpus = nullptr;
  napi_create_object(env, &result);
  napi_create_array_with_length(env, state.gpus.size(), &gpus);
  for (size_t i = 0; i < state.gpus.size(); i++)
    napi_set_element(env, gpus, static_cast<uint32_t>(i), describe(env, state.gpus[i]));
  set(env, result, "reason", make_string(env, state.reason));
  set(env, result, "path", make_string(env, state.path));
  set(env, result, "version", make_string(env, state.version));
  set(env, result, "driver", make_string(env, state.driver));
  set(env, result, "cuda", make_number(env, state.cuda / 1000 + state.cuda % 1000 / 100.0));
  set(env, result, "gpus", gpus);
  return result;
}

}  // namespace zs::napi
