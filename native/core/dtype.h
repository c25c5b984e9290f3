// Element types: names and sizes, in the order of backend.h.
#pragma once
#include <cstdint>

namespace zs {

inline constexpr int kNumDtypes = 8;
inline constexpr int64_t kDtypeBytes[kNumDtypes] = {4, 2, 2, 4, 1, 8, 1, 1};
inline constexpr const char *kDtypeNames[kNumDtypes] = {"f32", "bf16", "f16",    "i32",
                                                        "u8",  "i64",  "f8e4m3", "f8e5m2"};

inline constexpr int kNumCategories = 6;
inline constexpr int kHost = 5;
inline constexpr const char *kCategoryNames[kNumCategories] = {"parameters",  "gradients", "optimizer",
                                                               "activations", "buffers",   "host"};

}  // namespace zs
