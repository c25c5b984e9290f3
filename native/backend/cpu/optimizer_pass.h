// What the elementwise optimizers share: the gradient's scale with clipping, the walk over blocks, the 16-bit copy,
// zeroing the gradient. An optimizer gives the arithmetic of one block, as a plain loop that the compiler widens.
#pragma once
#include <cmath>

#include "../../ops/optimizer.h"
#include "clones.h"
#include "floats.h"
#include "halves.h"

namespace zs::cpu {
namespace {

struct Gradient {
  float scale;
  bool skip, zero;
};

// `scale` as given is that of the loss; the norm is of the gradients as stored.
inline Gradient gradient_of(const zs_call *call, int norm_index, double scale, double max_norm, double zero) {
  Gradient g{static_cast<float>(scale), false, zero != 0};
  if (present(call, norm_index)) {
    const float norm = data<float>(call, norm_index)[0];
    g.skip = !std::isfinite(norm);
    const double ratio = max_norm / (norm * std::fabs(g.scale) + 1e-6);
    if (max_norm > 0 && ratio < 1) g.scale = static_cast<float>(g.scale * ratio);
  }
  return g;
}

inline bool skips(const zs_call *call, int norm_index) {
  return present(call, norm_index) && !std::isfinite(data<float>(call, norm_index)[0]);
}

// 1 - x, rounded once: near 1 the difference of floats has few digits.
inline float rest(double x) { return static_cast<float>(1 - x); }

constexpr int64_t pass_block = 1024;  // elements; what is read twice stays in the first-level cache

// body(first, count, gradient f32 as stored) for blocks of [0, count), then the gradient to 0 (not where it is skipped).
template <class Body>
int32_t gradient_pass(zs_call *call, int grad_index, const Gradient &g, Body body) {
  return by_float(call, dtype_of(call, grad_index), [&]<class G>(G) {
    G *grad = data<G>(call, grad_index);
    parallel_for(call, count_of(call, grad_index), 4096, [&](int64_t begin, int64_t end) {
      float wide[pass_block];
      for (int64_t i = begin; i < end; i += pass_block) {
        const int64_t n = end - i < pass_block ? end - i : pass_block;
        if constexpr (std::is_same_v<G, float>) {
          body(i, n, grad + i);
        } else {
          if (!g.skip) widen_range(wide, grad + i, n);
          body(i, n, wide);
        }
        if (g.zero && !g.skip) for (int64_t j = 0; j < n; j++) grad[i + j] = from_float<G>(0);
      }
    });
    return int32_t{ZS_OK};
  });
}

// The same for an update of param: the body is left out where the norm is not finite; out gets the new values.
template <class Body>
int32_t optimizer_pass(zs_call *call, int param_index, int out_index, int grad_index, const Gradient &g, Body body) {
  const float *param = data<float>(call, param_index);
  const bool has_out = present(call, out_index);
  return by_float(call, has_out ? dtype_of(call, out_index) : ZS_F32, [&]<class O>(O) {
    O *out = data<O>(call, out_index);
    return gradient_pass(call, grad_index, g, [&](int64_t i, int64_t n, const float *gradient) {
      if (g.skip) return;
      body(i, n, gradient);
      if (has_out) narrow_range(out + i, param + i, n);
    });
  });
}

}  // namespace
}  // namespace zs::cpu
