// Numbers of 16 bits, by arithmetic that every processor has.
#pragma once
#include <string.h>
#include "machine.h"

static inline u32 float_bits(float x) { u32 bits; memcpy(&bits, &x, 4); return bits; }
static inline float bits_float(u32 bits) { float x; memcpy(&x, &bits, 4); return x; }

static inline float widen_f16(u16 half) {
  // The exponent's bias is 112 less; subnormal numbers come out right as well.
  const u32 bits = float_bits(bits_float((u32)(half & 0x7fff) << 13) * 0x1p112f);
  const u32 special = (half & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
  return bits_float(bits | special | (u32)(half & 0x8000) << 16);
}
// To the nearest, to even between two.
static inline u16 narrow_f16(float x) {
  const u32 bits = float_bits(x) & 0x7fffffff, sign = float_bits(x) >> 16 & 0x8000;
  if (bits > 0x7f800000) return 0x7fff;
  if (bits >= 0x47800000) return sign | 0x7c00;
  // The last bit of 0.5 is worth as much as that of a subnormal number: the sum rounds.
  if (bits < 0x38800000) return sign | (float_bits(bits_float(bits) + 0.5f) - float_bits(0.5f));
  return sign | (bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13;
}
static inline float widen_bf16(u16 half) { return bits_float((u32)half << 16); }
static inline u16 narrow_bf16(float x) {
  const u32 bits = float_bits(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
