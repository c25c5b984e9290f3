#include "find.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "../attention_cudnn.h"

namespace zs::cuda {

namespace {

struct Description {
  const char *name, *variable;
  std::vector<const char *> files;
  std::vector<const char *> python;  // below site-packages
  const char *package, *without;
};

const Description descriptions[kNumLibraries] = {
    {"cublaslt", "ZEROSHARD_CUBLASLT", {"libcublasLt.so.13", "libcublasLt.so.12"},
     {"nvidia/cu13/lib", "nvidia/cublas/lib"},
     "the CUDA toolkit's libcublas-13-0, or pip's nvidia-cublas", "no matrix products, so no training"},
    {"nccl", "ZEROSHARD_NCCL", {"libnccl.so.2"}, {"nvidia/nccl/lib", "nvidia/cu13/lib"},
     "the package libnccl2, or pip's nvidia-nccl-cu13", "one device works; ranks exchange through host memory"},
    {"cudnn", "ZEROSHARD_CUDNN", {"libcudnn.so.9"}, {"nvidia/cudnn/lib", "nvidia/cu13/lib"},
     "the package libcudnn9-cuda-13, or pip's nvidia-cudnn-cu13", "attention through our own kernels"},
};

const char *variable(const char *name) {
  const char *value = getenv(name);
  return value && value[0] ? value : nullptr;
}

std::vector<std::string> folders(const Description &library) {
  std::vector<std::string> patterns;
  for (const char *home : {"CUDA_HOME", "CUDA_PATH"})
    if (const char *value = variable(home)) {
      patterns.push_back(std::string(value) + "/lib64");
      patterns.push_back(std::string(value) + "/targets/*/lib");
    }
  for (const char *fixed : {"/usr/local/cuda/lib64", "/usr/local/cuda-13*/lib64", "/usr/local/cuda-12*/lib64",
                            "/usr/local/cuda*/targets/*/lib"})
    patterns.push_back(fixed);
  if (const char *conda = variable("CONDA_PREFIX")) patterns.push_back(std::string(conda) + "/lib");
  std::vector<std::string> sites = {"/usr/local/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages",
                                    "/usr/lib/python3/dist-packages"};
  for (const char *home : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const char *value = variable(home)) sites.push_back(std::string(value) + "/lib/python3*/site-packages");
  if (const char *home = variable("HOME")) sites.push_back(std::string(home) + "/.local/lib/python3*/site-packages");
  for (const std::string &site : sites)
    for (const char *below : library.python) patterns.push_back(site + "/" + below);
  return patterns;
}

std::vector<std::string> expand(const std::string &pattern) {
  glob_t found = {};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (size_t i = found.gl_pathc; i > 0; i--) paths.emplace_back(found.gl_pathv[i - 1]);  // newest name first
  globfree(&found);
  return paths;
}

void *try_open(const std::string &path, Opened &into) {
  void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle) into.path = path;
  else if (path.find('/') != std::string::npos && into.reason.empty())
    if (const char *why = dlerror()) into.reason = why;  // it is there, but does not open
  return handle;
}

void *search(const Description &library, Opened &into) {
  if (const char *given = variable(library.variable)) {
    void *handle = try_open(given, into);
    if (!handle) into.reason = std::string(library.variable) + " is " + given + ": " + into.reason;
    return handle;
  }
  for (const char *file : library.files)
    if (void *handle = try_open(file, into)) return handle;
  for (const std::string &folder : folders(library))
    for (const char *file : library.files)
      for (const std::string &path : expand(folder + "/" + file))
        if (void *handle = try_open(path, into)) return handle;
  return nullptr;
}

std::string number(int major, int minor, int patch) {
  char text[48];
  snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
  return text;
}

// The version by the library's own word; empty where it does not say.
std::string version_of(Library which, void *handle) {
  auto find = [handle](const char *name) { return dlsym(handle, name); };
  if (which == Library::cublaslt) {
    auto get = reinterpret_cast<size_t (*)()>(find("cublasLtGetVersion"));
    int v = get ? static_cast<int>(get()) : 0;
    return v ? number(v / 10000, v / 100 % 100, v % 100) : "";
  }
  if (which == Library::nccl) {
    auto get = reinterpret_cast<int (*)(int *)>(find("ncclGetVersion"));
    int v = 0;
    return get && get(&v) == 0 ? number(v / 10000, v / 100 % 100, v % 100) : "";
  }
  if (which == Library::cudnn) {
    auto get = reinterpret_cast<size_t (*)()>(find("cudnnGetVersion"));
    int v = get ? static_cast<int>(get()) : 0;
    return v ? number(v / 10000, v / 100 % 100, v % 100) : "";
  }
  return "";
}

Opened open_now(Library which) {
  const Description &library = descriptions[static_cast<int>(which)];
  Opened made;
  made.handle = search(library, made);
  if (!made.handle) {
    std::string why = made.reason.empty() ? std::string(library.files[0]) + " is not found" : made.reason;
    made.reason = why + "; it comes with " + library.package + ", or set " + library.variable +
                  " to its path; without it: " + library.without;
    return made;
  }
  made.reason.clear();
  made.version = version_of(which, made.handle);
  Dl_info place;
  if (made.path.find('/') == std::string::npos) {
    const char *known[] = {"cublasLtGetVersion", "ncclGetVersion", "cudnnGetVersion"};
    void *address = dlsym(made.handle, known[static_cast<int>(which)]);
    if (address && dladdr(address, &place) && place.dli_fname) made.path = place.dli_fname;
  }
  return made;
}

}  // namespace

const Opened &open_library(Library which) {
  static std::once_flag once[kNumLibraries];
  static Opened opened[kNumLibraries];
  int index = static_cast<int>(which);
  std::call_once(once[index], [&] { opened[index] = open_now(which); });
  return opened[index];
}

void *symbol(Library which, const char *name) {
  void *handle = open_library(which).handle;
  return handle ? dlsym(handle, name) : nullptr;
}

int32_t library_info(int32_t index, zs_library_info *info) {
  if (index < 0 || index >= kNumLibraries) return ZS_BAD_ARGUMENT;
  const Opened &opened = open_library(static_cast<Library>(index));
  *info = {};
  snprintf(info->name, sizeof info->name, "%s", descriptions[index].name);
  snprintf(info->version, sizeof info->version, "%s", opened.version.c_str());
  snprintf(info->path, sizeof info->path, "%s", opened.path.c_str());
  const bool attention = opened.handle && static_cast<Library>(index) == Library::cudnn && attention_choice;
  snprintf(info->note, sizeof info->note, "%s", attention ? attention_choice().c_str() : opened.reason.c_str());
  return ZS_OK;
}

}  // namespace zs::cuda
