// Libraries of the system that are opened at first need: cuBLASLt, NCCL, cuDNN. Looked for, in this order, at
// the path of an environment variable, by name alone, in CUDA's folders, Conda's, and Python's packages.
#pragma once
#include <cstdio>
#include <string>

#include "../../backend.h"

namespace zs::cuda {

enum class Library { cublaslt, nccl, cudnn };
inline constexpr int kNumLibraries = 3;

struct Opened {
  void *handle = nullptr;  // nullptr: not found
  std::string path, version;
  std::string reason;  // where not found, or too old: what brings it
};

const Opened &open_library(Library which);  // any thread; stays open
void *symbol(Library which, const char *name);  // nullptr where there is none
// The function of that name; the first that is not there is noted.
template <class Function>
void bind(Library which, Function &into, const char *name, std::string &missing) {
  into = reinterpret_cast<Function>(symbol(which, name));
  if (!into && missing.empty()) missing = name;
}
// A library's functions as they were found, or why they cannot be used.
template <class Functions> struct Bound {
  Functions functions = {};
  std::string reason;  // empty: they can
  // nullptr, with the reason in `error`, where they cannot.
  const Functions *get(char *error) const {
    if (reason.empty()) return &functions;
    snprintf(error, ZS_ERROR_BYTES, "%s", reason.c_str());
    return nullptr;
  }
};
int32_t library_info(int32_t index, zs_library_info *info);

}  // namespace zs::cuda
