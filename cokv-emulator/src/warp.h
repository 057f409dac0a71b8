// What the lanes of a warp do together: each writes into the exchange, waits for all, and reads.
//
// The next exchange of a warp is in other memory, and the one after that comes when all have waited again: nobody's numbers are
// written over before they are read.
#pragma once
#include "numbers_16.h"

static inline int lane_of_warp() { return machine->thread % 32; }
static inline void wait_for_warp(const char* file, u32 line) { machine->wait(machine, ALL_OF_THE_WARP, file, line); }

template <class N> static inline N exchange_xor(N x, int mask, const char* file, u32 line) {
  N* all = (N*)machine->exchange;
  all[lane_of_warp()] = x;
  wait_for_warp(file, line);
  return all[lane_of_warp() ^ mask];
}

static inline bool exchange_any(bool x, const char* file, u32 line) {
  u8* all = machine->exchange;
  all[lane_of_warp()] = x;
  wait_for_warp(file, line);
  bool any = false;
  for (int lane = 0; lane < 32; lane++) any |= all[lane];
  return any;
}

// d += a b, m16n8k16: lane (g, c) holds rows g and g + 8 of a and of d, columns 2c and 2c + 1 of d (and the same of a's two halves of
// 8 columns), and of column g of b the rows 2c, 2c + 1, 2c + 8, 2c + 9.
typedef float Four __attribute__((vector_size(16)));
struct Fragments {
  float a[16][16];  // by rows
  float b[8][16];   // by columns
};
static inline float dot_16(const float* x, const float* y) {
  const Four *p = (const Four*)x, *q = (const Four*)y;
  const Four sums = p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3] * q[3];
  return sums[0] + sums[1] + sums[2] + sums[3];
}
template <class T> static inline void multiply_fragments(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, const char* file, u32 line) {
  Fragments* all = (Fragments*)machine->exchange;
  const int g = lane_of_warp() >> 2, c = lane_of_warp() & 3;
  const auto put = [](float* to, u32 pair) { to[0] = T::widen((u16)pair); to[1] = T::widen((u16)(pair >> 16)); };
  for (int i = 0; i < 4; i++) put(&all->a[g + 8 * (i & 1)][2 * c + 8 * (i >> 1)], a[i]);
  put(&all->b[g][2 * c], b0);
  put(&all->b[g][2 * c + 8], b1);
  wait_for_warp(file, line);
  for (int i = 0; i < 4; i++) d[i] += dot_16(all->a[g + 8 * (i >> 1)], all->b[2 * c + (i & 1)]);
}

// Four 8×8 matrices: lane l brings the address of row l % 8 of matrix l / 8, and gets numbers 2c and 2c + 1 of row g of each, or of
// column g.
static inline void exchange_matrices(u32 (&r)[4], const void* row, bool transposed, const char* file, u32 line) {
  check_shared(row, "misaligned ldmatrix", "ldmatrix outside of shared memory");
  const u16** all = (const u16**)machine->exchange;
  const int lane = lane_of_warp(), g = lane >> 2, c = lane & 3;
  all[lane] = (const u16*)row;
  wait_for_warp(file, line);
  for (int matrix = 0; matrix < 4; matrix++) {
    const u16** rows = all + 8 * matrix;
    const u32 low = transposed ? rows[2 * c][g] : rows[g][2 * c], high = transposed ? rows[2 * c + 1][g] : rows[g][2 * c + 1];
    r[matrix] = low | high << 16;
  }
}
