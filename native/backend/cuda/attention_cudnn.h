// Attention through cuDNN, which attention_forward and attention_backward try first. The environment variable
// ZEROSHARD_ATTENTION says otherwise: `own` never, `cudnn` always (what cuDNN cannot do is an error then).
#pragma once
#include <string>

#include "../backend.h"

namespace zs::cuda {

// done false and ZS_OK: cuDNN is not there or not for this call, nothing was queued. The choice depends on the call
// alone, never on what was called before, so that a run gives the same bits when it is resumed.
__attribute__((weak)) int32_t attention_cudnn(zs_call *call, bool backward, bool *done);

// What attention goes through and why, for `zeroshard doctor`; opens no device.
__attribute__((weak)) std::string attention_choice();

}  // namespace zs::cuda
