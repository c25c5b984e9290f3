// Attention as an operation graph of cuDNN, and the plan that its heuristics choose for it. Needs no CUDA header, and
// no device where a plan is made for a described one: test/native/cudnn_test.cpp and cudnn_plans_test.cpp run it so.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "libraries/cudnn.h"

namespace zs::cuda {

// All that a plan depends on. Strides in elements; the scale and the position are given at each execution.
struct AttentionShape {
  bool backward;
  int dtype;  // ZS_BF16, ZS_F16
  int64_t b, tq, tk, hq, hkv, d;
  bool causal, shifted;  // shifted: by a position other than 0
  int64_t q_row, q_batch, k_row, k_batch, v_row, v_batch;
  int64_t o_row;  // of o and do: the heads are perhaps some of all
  auto operator<=>(const AttentionShape &) const = default;
};

// Names of the tensors that an execution binds; those from kFirstInside on live inside the graph.
enum DnnUid : int64_t { UID_Q = 1, UID_K, UID_V, UID_O, UID_LSE, UID_SCALE, UID_NEGATIVE, UID_POSITION, UID_DO, UID_DQ,
                        UID_DK, UID_DV, UID_DELTA, UID_ONE, kFirstInside };

// A finalized plan, with the descriptors that it was made of. Kept as long as the process: kernels of it may be queued.
struct AttentionPlan {
  DnnDescriptor plan = nullptr;
  int64_t workspace = 0;  // bytes
  std::string reason;     // plan nullptr: why there is none
  std::vector<DnnDescriptor> owned;
};

// For the handle's device; or, without a handle, for the device that `device` describes (DNN_DEVICEPROP, finalized).
// Engines that are noted as giving other bits at each run are passed over (9.24 notes none; that dq is a product's
// result, not a sum by atomics, is what keeps the order).
AttentionPlan plan_attention(const Cudnn &api, DnnHandle handle, DnnDescriptor device, const AttentionShape &shape);
void forget(const Cudnn &api, AttentionPlan &plan);  // of which nothing is queued

}  // namespace zs::cuda
