#include "trace.h"

#include <algorithm>
#include <cstring>

#include "../ops/attention.h"
#include "../ops/float8.h"
#include "../ops/matmul.h"

namespace zs {

void Trace::start(size_t capacity) {
  std::lock_guard guard(lock_);
  on_.store(false, std::memory_order_relaxed);
  std::vector<TraceRecord>(capacity).swap(ring_);
  begin_ = end_ = dropped_ = 0;
  on_.store(capacity > 0, std::memory_order_relaxed);
}

void Trace::add(const TraceRecord &record) {
  std::lock_guard guard(lock_);
  if (ring_.empty()) return;  // ended since the caller asked
  ring_[end_++ % ring_.size()] = record;
  if (end_ - begin_ <= ring_.size()) return;
  begin_++;
  dropped_++;
}

std::vector<TraceRecord> Trace::take(uint64_t *dropped) {
  std::lock_guard guard(lock_);
  std::vector<TraceRecord> taken;
  taken.reserve(static_cast<size_t>(end_ - begin_));
  for (uint64_t i = begin_; i < end_; i++) taken.push_back(ring_[i % ring_.size()]);
  begin_ = end_;
  *dropped = dropped_;
  dropped_ = 0;
  return taken;
}

namespace {

// Query-key pairs of one head that the mask lets through.
double attention_pairs(const double *s) {
  double tq = s[ATTENTION_TQ], tk = s[ATTENTION_TK];
  if (s[ATTENTION_CAUSAL] == 0) return tq * tk;
  double pairs = 0;
  for (double t = 0; t < tq; t++) pairs += std::min(tk, t + s[ATTENTION_Q_POSITION] + 1);
  return pairs;
}

}  // namespace

double kernel_flops(const char *name, const double *s) {
  if (!strcmp(name, "matmul"))
    return 2 * s[MATMUL_BATCH] * s[MATMUL_M] * s[MATMUL_N] * s[MATMUL_K];
  if (!strcmp(name, "fp8_matmul")) return 2 * s[FP8_MATMUL_M] * s[FP8_MATMUL_N] * s[FP8_MATMUL_K];
  // Forward: q k' and p v. Backward: q k' again, dp, dv, dq, dk.
  double products = !strcmp(name, "attention_forward")    ? 2
                    : !strcmp(name, "attention_backward") ? 5
                                                          : 0;
  if (products == 0) return 0;
  return 2 * products * s[ATTENTION_B] * s[ATTENTION_HQ] * s[ATTENTION_D] * attention_pairs(s);
}

}  // namespace zs
