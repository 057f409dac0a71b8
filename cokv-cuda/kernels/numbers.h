// Numbers of three types in memory, and what kernels have in common.

// How numbers are stored: `Kind` of the host.
#define KIND_F32 0
#define KIND_F16 1
#define KIND_BF16 2
// A result that no other item shares: it is written where it belongs.
#define DIRECT 0xffffffffu

struct F32 {};
template <class T> struct Stored {
  typedef u16 Word;
  static DEVICE_IN_CLASS float widen(u16 x) { return T::widen(x); }
  static DEVICE_IN_CLASS u16 narrow(float x) { return (u16)T::pack(x, 0.f); }
  // Two numbers side by side, at a multiple of their size.
  static DEVICE_IN_CLASS void widen_pair(float (&x)[2], const u16* from) {
    u32 bits;
    load<4>(&bits, from);
    x[0] = T::widen((u16)bits);
    x[1] = T::widen((u16)(bits >> 16));
  }
};
template <> struct Stored<F32> {
  typedef float Word;
  static DEVICE_IN_CLASS float widen(float x) { return x; }
  static DEVICE_IN_CLASS float narrow(float x) { return x; }
  static DEVICE_IN_CLASS void widen_pair(float (&x)[2], const float* from) {
    u32 bits[2];
    load<8>(bits, from);
    x[0] = bits_float(bits[0]);
    x[1] = bits_float(bits[1]);
  }
};

DEVICE float read(const void* from, u64 at, int kind) {
  if (kind == KIND_F32) return ((const float*)from)[at];
  const u16 bits = ((const u16*)from)[at];
  return kind == KIND_F16 ? F16::widen(bits) : BF16::widen(bits);
}
DEVICE void write(void* to, u64 at, int kind, float x) {
  if (kind == KIND_F32) ((float*)to)[at] = x;
  else ((u16*)to)[at] = (u16)(kind == KIND_F16 ? F16::pack(x, 0.f) : BF16::pack(x, 0.f));
}

DEVICE float warp_sum(float x) {
  for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);
  return x;
}
DEVICE double warp_sum(double x) {
  for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);
  return x;
}
DEVICE float warp_max(float x) {
  for (int mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, shuffle_xor(x, mask));
  return x;
}
// Of all threads of a block; `shared` has room for one number a warp.
template <class N> DEVICE N block_sum(N x, N* shared) {
  x = warp_sum(x);
  barrier();
  if (thread() % 32 == 0) shared[thread() / 32] = x;
  barrier();
  N sum = 0;
  for (int warp = 0; warp < threads() / 32; warp++) sum += shared[warp];
  return sum;
}
// Four numbers of 32 bits side by side, at a multiple of 16 bytes.
DEVICE void load4(float (&x)[4], const float* from) {
  u32 bits[4];
  load<16>(bits, from);
#pragma unroll
  for (int i = 0; i < 4; i++) x[i] = bits_float(bits[i]);
}
// Two numbers side by side; `at` is even.
DEVICE void write_pair(void* to, u64 at, int kind, float a, float b) {
  if (kind == KIND_F32) { ((float*)to)[at] = a; ((float*)to)[at + 1] = b; }
  else *(u32*)((u16*)to + at) = kind == KIND_F16 ? F16::pack(a, b) : BF16::pack(a, b);
}
