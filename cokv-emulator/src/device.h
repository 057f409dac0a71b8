// All that a kernel sees of the machine, on the host: what cokv-cuda/kernels/device.h has, under the same names.
#pragma once
#include <math.h>
#include "entries.h"
#include "warp.h"

#define DEVICE static inline
#define DEVICE_IN_CLASS inline
#define SHARED_BYTES(name) u8* name = machine->shared
#define INFINITE __builtin_inff()

DEVICE int thread() { return machine->thread; }
DEVICE int threads() { return machine->threads; }
DEVICE int block() { return machine->block; }
DEVICE int block_y() { return machine->block_y; }
DEVICE void barrier(CALLER) { machine->wait(machine, ALL_OF_THE_BLOCK, file, line); }

// As CUDA has them: where one of two is unsigned, both are taken as such.
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE u32 min(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 min(int a, u32 b) { return min((u32)a, b); }
DEVICE u32 min(u32 a, int b) { return min(a, (u32)b); }
DEVICE u64 min(u64 a, u64 b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE u32 max(u32 a, u32 b) { return a > b ? a : b; }
DEVICE u32 max(int a, u32 b) { return max((u32)a, b); }
DEVICE u32 max(u32 a, int b) { return max(a, (u32)b); }
DEVICE u64 max(u64 a, u64 b) { return a > b ? a : b; }

DEVICE float exp2_fast(float x) { return exp2f(x); }
DEVICE float log2_fast(float x) { return log2f(x); }
DEVICE float exp_exact(float x) { return expf(x); }
DEVICE float root(float x) { return sqrtf(x); }
DEVICE double log_exact(double x) { return log(x); }
DEVICE bool finite(float x) { return (float_bits(x) & 0x7f800000u) != 0x7f800000u; }

DEVICE float shuffle_xor(float x, int mask, CALLER) { return exchange_xor(x, mask, file, line); }
DEVICE double shuffle_xor(double x, int mask, CALLER) { return exchange_xor(x, mask, file, line); }
DEVICE u32 shuffle_xor(u32 x, int mask, CALLER) { return exchange_xor(x, mask, file, line); }
DEVICE bool any_lane(bool x, CALLER) { return exchange_any(x, file, line); }
DEVICE u32 permute(u32 a, u32 b, u32 selector) {
  const u64 both = (u64)b << 32 | a;
  u32 picked = 0;
  for (int i = 0; i < 4; i++) picked |= (u32)(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return picked;
}

struct F16 {
  static inline u32 pack(float low, float high) { return narrow_f16(low) | (u32)narrow_f16(high) << 16; }
  static inline float widen(u16 bits) { return widen_f16(bits); }
  static inline void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, CALLER) { multiply_fragments<F16>(d, a, b0, b1, file, line); }
};
struct BF16 {
  static inline u32 pack(float low, float high) { return narrow_bf16(low) | (u32)narrow_bf16(high) << 16; }
  static inline float widen(u16 bits) { return widen_bf16(bits); }
  static inline void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, CALLER) { multiply_fragments<BF16>(d, a, b0, b1, file, line); }
};

template <int BYTES> DEVICE void load(u32* out, const void* from) {
  check_global(from, BYTES, "misaligned load", "load outside of memory");
  memcpy(out, from, BYTES);
}

// When a copy is done between here and the wait for it, the launch has drawn (`copies.rs`).
DEVICE void copy_async(void* to, const void* from) {
  check_shared(to, "misaligned copy into shared memory", "copy to outside of shared memory");
  check_global(from, 16, "misaligned copy out of memory", "copy from outside of memory");
  machine->copy(machine, to, from);
}
DEVICE void copy_commit() { machine->commit_copies(machine); }
template <int PENDING> DEVICE void copy_wait() { machine->wait_for_copies(machine, PENDING); }

DEVICE void load_matrices(u32 (&r)[4], const void* row, CALLER) { exchange_matrices(r, row, false, file, line); }
DEVICE void load_matrices_transposed(u32 (&r)[4], const void* row, CALLER) { exchange_matrices(r, row, true, file, line); }
