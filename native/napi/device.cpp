// The device of the environment: the CPU of this addon, or the backend that lies beside it as a shared object and is
// opened when it is asked for.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "../backend/cpu/backend.h"
#include "environment.h"

namespace zs::napi {

namespace {

constexpr const char *kBackendFile = "libzeroshard_cuda13.so";

// Opened once, for all environments of the process.
struct Shared {
  std::string path, reason;  // reason: why it cannot be used
  zs_backend_open_function open = nullptr;
};

const Shared &shared() {
  static const Shared opened = [] {
    Shared made;
    Dl_info place;
    if (!dladdr(reinterpret_cast<void *>(&shared), &place) || !place.dli_fname)
      return made.reason = "the addon does not know where it lies", made;
    std::string addon = place.dli_fname;
    const char *named = getenv("ZEROSHARD_CUDA");  // another build of it
    made.path = named && named[0] ? named : addon.substr(0, addon.rfind('/') + 1) + kBackendFile;
    void *handle = dlopen(made.path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char *why = dlerror();
      made.reason = why ? why : "it does not open";
      if (made.reason.find("No such file") != std::string::npos)
        made.reason = made.path + " is not there: this build has no CUDA backend; `npm run build` makes it where nvcc 13 is";
      return made;
    }
    made.open = reinterpret_cast<zs_backend_open_function>(dlsym(handle, ZS_BACKEND_OPEN));
    if (!made.open) made.reason = made.path + " has no " + ZS_BACKEND_OPEN;
    return made;
  }();
  return opened;
}

// Device -1: the table alone. nullptr: `reason`.
const zs_backend *open_backend(int device, std::string &reason) {
  const Shared &file = shared();
  char error[512] = "";
  const zs_backend *table = file.open ? file.open(ZS_BACKEND_ABI, device, error, sizeof error) : nullptr;
  if (!table) return reason = file.open ? error : file.reason, nullptr;
  bool fits = table->struct_size == sizeof(zs_backend) && table->num_kernels == ZS_OP_COUNT;
  if (!fits) reason = file.path + " does not fit this addon; build or install both anew";
  return fits ? table : nullptr;
}

void choose(Call &call, const std::string &name, int index) {
  std::unique_ptr<Runtime> &runtime = call.environment->runtime;
  if (name == runtime->backend().name && name == "cpu") return;
  if (name != "cpu" && name != "cuda")
    throw Error{"DEVICE", text("there is no device '%s'; it is 'cpu' or 'cuda'", name.c_str())};
  std::string reason;
  const zs_backend *table = name == "cpu" ? &cpu::backend() : open_backend(index, reason);
  if (!table) throw Error{"DEVICE", "device cuda: " + reason};
  if (name == runtime->backend().name) return;  // the same one: a second index was refused above
  if (runtime->used())
    throw Error{"DEVICE", text("the device is '%s' already; choose '%s' before the first tensor",
                               runtime->backend().name, name.c_str())};
  runtime = name == "cpu" ? std::make_unique<Runtime>(*table) : std::make_unique<Runtime>(*table, &cpu::backend());
}

napi_value describe(napi_env env, const zs_device_info &info) {
  napi_value result = nullptr;
  napi_create_object(env, &result);
  set(env, result, "index", make_number(env, info.index));
  set(env, result, "name", make_string(env, info.name));
  set(env, result, "uuid", make_string(env, info.uuid));
  set(env, result, "totalBytes", make_number(env, static_cast<double>(info.total_bytes)));
  set(env, result, "capability", make_number(env, info.capability / 10.0));
  set(env, result, "multiprocessors", make_number(env, info.multiprocessors));
  set(env, result, "driver", make_number(env, info.driver / 1000.0));
  set(env, result, "runtime", make_number(env, info.runtime / 1000.0));
  return result;
}

napi_value describe(napi_env env, const zs_library_info &info) {
  napi_value result = nullptr;
  napi_create_object(env, &result);
  set(env, result, "name", make_string(env, info.name));
  set(env, result, "version", make_string(env, info.version));
  set(env, result, "path", make_string(env, info.path));
  set(env, result, "note", make_string(env, info.note));
  return result;
}

}  // namespace

napi_value configure(Call &call) {
  napi_value options = call.arguments[0];
  int threads = integer_of(call, property_of(call, options, "threads"), 0, 4097, "threads");
  bool serial = boolean_of(call, property_of(call, options, "serial"), "serial");
  napi_value limit = property_of(call, options, "memoryLimit");
  double bytes = is_undefined(call, limit) ? 0 : number_of(call, limit, "memoryLimit");
  if (!(bytes >= 0 && bytes < 0x1p62))
    throw Error{"ARGUMENT", text("memoryLimit is %g, not a number of bytes", bytes)};
  napi_value device = property_of(call, options, "device");
  napi_value index = property_of(call, options, "index");
  if (!is_undefined(call, device))
    choose(call, string_of(call, device, "device"),
           is_undefined(call, index) ? 0 : integer_of(call, index, 0, 1 << 10, "index"));
  call.runtime().configure(threads, serial, static_cast<int64_t>(bytes));
  return nullptr;
}

napi_value device(Call &call) { return make_string(call.env, call.runtime().backend().name); }

// What there is beside the CPU; looks, and opens no device. The libraries are large: only where they are asked for.
napi_value devices(Call &call) {
  bool look = !is_undefined(call, call.arguments[0]) && boolean_of(call, call.arguments[0], "libraries");
  napi_env env = call.env;
  napi_value result = nullptr, list = nullptr, libraries = nullptr, kernels = nullptr;
  napi_create_object(env, &result);
  napi_create_array(env, &list);
  napi_create_array(env, &libraries);
  napi_create_array(env, &kernels);
  std::string reason;
  const zs_backend *table = open_backend(-1, reason);
  uint32_t count = 0;
  if (table) {
    zs_device_info device;
    char error[ZS_ERROR_BYTES] = "";
    while (table->device_info(static_cast<int32_t>(count), &device, error) == ZS_OK)
      napi_set_element(env, list, count++, describe(env, device));
    if (count == 0) open_backend(0, reason);  // which says why
    zs_library_info library;
    for (uint32_t i = 0; look && table->library_info(static_cast<int32_t>(i), &library) == ZS_OK; i++)
      napi_set_element(env, libraries, i, describe(env, library));
    for (uint32_t i = 0, missing = 0; i < ZS_OP_COUNT; i++)
      if (!table->kernels[i])
        napi_set_element(env, kernels, missing++, make_string(env, op_info(static_cast<int>(i)).name));
  }
  napi_value loaded = nullptr;
  napi_get_boolean(env, table != nullptr, &loaded);
  set(env, result, "loaded", loaded);
  set(env, result, "path", make_string(env, shared().path));
  set(env, result, "reason", make_string(env, reason));
  set(env, result, "devices", list);
  set(env, result, "libraries", libraries);
  set(env, result, "missingKernels", kernels);
  return result;
}

}  // namespace zs::napi
