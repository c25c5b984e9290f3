// What matmul needs of the CUDA runtime, apart from it so that its logic can be tested on the host.
#pragma once
#include <cstddef>
#include <cstdint>

namespace zs::cuda {

int32_t clear(void *stream, void *data, size_t bytes, char *error);  // copies.cpp

}  // namespace zs::cuda
