// bf16 and f16 as storage: conversions from and to f32, rounded to nearest even; NaN stays NaN (quiet).
// The functions have internal linkage, so that files built for different instruction sets never share a copy.
#pragma once
#include <bit>
#include <cstdint>

namespace zs::cpu {

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

namespace {

constexpr inline float to_float(float x) { return x; }
constexpr inline float to_float(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

constexpr inline float to_float(f16 x) {
  uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00) {  // infinity, or NaN made quiet
    uint32_t quiet = magnitude > 0x7c00 ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ff) << 13 | quiet);
  }
  if (magnitude >= 0x400) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  float subnormal = static_cast<float>(magnitude) * 0x1p-24f;  // exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

constexpr inline bf16 to_bf16(float x) {
  uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(u >> 16 | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1)) >> 16)};
}

constexpr inline f16 to_f16(float x) {
  uint32_t u = std::bit_cast<uint32_t>(x), magnitude = u & 0x7fffffffu;
  uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x3ff))};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00)};  // 65520 and above: infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 lets the sum's rounding place the last bit at 2^-24
    float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
  return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
}

template <class T> constexpr inline T from_float(float x);
template <> constexpr inline float from_float<float>(float x) { return x; }
template <> constexpr inline bf16 from_float<bf16>(float x) { return to_bf16(x); }
template <> constexpr inline f16 from_float<f16>(float x) { return to_f16(x); }

}  // namespace
}  // namespace zs::cpu
