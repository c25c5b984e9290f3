// Element types: names and sizes, in the order of backend.h.
#pragma once
#include <cstdint>

namespace zs {

inline constexpr int kNumDtypes = 6;
inline constexpr int64_t kDtypeBytes[kNumDtypes] = {4, 2, 2, 4, 1, 8};
inline constexpr const char *kDtypeNames[kNumDtypes] = {"f32", "bf16", "f16", "i32", "u8", "i64"};

inline constexpr int kNumCategories = 6;
inline constexpr int kHost = 5;
inline constexpr const char *kCategoryNames[kNumCategories] = {"parameters",  "gradients", "optimizer",
                                                               "activations", "buffers",   "host"};

}  // namespace zs
