// The backend's collectives between devices: NCCL.
#pragma once
#include "../collectives.h"

namespace zs::cuda {

extern const zs_collectives collectives;

}  // namespace zs::cuda
