// Sums over ranks: in rank order, floats in f32 and rounded once, integers exact (wrapping at the
// type's width). The same bits on every path, as every path sums here.
#pragma once
#include <cstddef>
#include <cstdint>

namespace zs::shm {

size_t element_size(int dtype);     // 0: no such type
const char *dtype_name(int dtype);  // "f32"
bool summable(int dtype);           // f32, bf16, f16, i32, i64
bool averageable(int dtype);        // the floats

// destinations[i][k] = Σ sources[·][k], divided by num_sources where `average`. A destination may be
// a source, but not overlap one otherwise.
void reduce(int dtype, void *const *destinations, int num_destinations, const void *const *sources,
            int num_sources, int64_t count, bool average);

}  // namespace zs::shm
