// Attention of up to 16 queries to a range of keys: decoding, bound by how fast keys and values are read.
//
// Four warps take tiles of 16 keys in turn and read them from global memory into the fragments that products want, nothing in
// between: the contraction is permuted so that every lane reads 16 bytes at once. For keys, lane (g, c) takes dims 32j + 8c … + 7
// of key g, which serve two steps of the product, the queries' dims permuted alike. For values, it takes dims 64j + 8g … + 7
// of keys 2c, 2c + 1, 2c + 8, 2c + 9; column n of output tile i is dim 64j + 8n + i.
template <class T, int D>
DEVICE void attend_few(const Item* items, const u32* tokens, const u16* queries, float* partials, void* output, float* log_sums,
                       int output_kind, int group, int query_heads, float scale) {
  constexpr int FULL = D / 32, TAIL = D % 32;              // chunks of the dot products: 32 dims, then 16
  constexpr int WIDE = D / 64, WIDE_TAIL = (D % 64) / 16;  // chunks of the values: 64 dims, then 16 each
  constexpr int STEPS = D / 16, TILES = D / 8;
  static_assert(TAIL == 0 || TAIL == 16, "head_dim is a multiple of 16");
  const Item item = items[block()];
  const int warp = thread() >> 5, lane = thread() & 31, g = lane >> 2, c = lane & 3;
  const int slots = item.tokens * group;

  u32 q[STEPS][4];
  u32 visible[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int slot = g + 8 * half;
    const bool used = slot < slots;
    const u32 token = used ? slot / group : 0, member = used ? slot % group : 0;
    visible[half] = used ? item.visible + token * item.step : 0;
    const u16* row = queries + ((u64)tokens[item.token + token] * query_heads + item.head + member) * D;
#pragma unroll
    for (int j = 0; j < FULL; j++) {
      u32 w[4] = {0, 0, 0, 0};
      if (used) load<16>(w, row + 32 * j + 8 * c);
      q[2 * j][half] = w[0]; q[2 * j][2 + half] = w[1]; q[2 * j + 1][half] = w[2]; q[2 * j + 1][2 + half] = w[3];
    }
    if (TAIL) {
      u32 w[2] = {0, 0};
      if (used) load<8>(w, row + 32 * FULL + 4 * c);
      q[STEPS - 1][half] = w[0]; q[STEPS - 1][2 + half] = w[1];
    }
  }

  float out[TILES][4];
#pragma unroll
  for (int i = 0; i < TILES; i++) out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0.f;
  float top[2] = {-INFINITE, -INFINITE}, sum[2] = {0.f, 0.f};

  for (u32 start = item.begin + 16 * warp; start < item.end; start += 64) {
    // Keys g and g + 8 for the scores; keys 2c, 2c+1, 2c+8, 2c+9 for the values. Beyond the end: the last key, masked.
    u32 kw[2][STEPS * 2];
#pragma unroll
    for (int t = 0; t < 2; t++) {
      const u32 key = min(start + g + 8 * t, item.end - 1);
      const u16* row = (const u16*)row_of(item.keys, item.until, key, 2 * D);
#pragma unroll
      for (int j = 0; j < FULL; j++) load<16>(&kw[t][4 * j], row + 32 * j + 8 * c);
      if (TAIL) load<8>(&kw[t][4 * FULL], row + 32 * FULL + 4 * c);
    }
    u32 vw[4][WIDE * 4 + WIDE_TAIL];
#pragma unroll
    for (int r = 0; r < 4; r++) {
      const u32 key = min(start + 2 * c + (r & 1) + 8 * (r >> 1), item.end - 1);
      const u16* row = (const u16*)row_of(item.values, item.until, key, 2 * D);
#pragma unroll
      for (int j = 0; j < WIDE; j++) load<16>(&vw[r][4 * j], row + 64 * j + 8 * g);
#pragma unroll
      for (int j = 0; j < WIDE_TAIL; j++) load<4>(&vw[r][4 * WIDE + j], row + 64 * WIDE + 16 * j + 2 * g);
    }
    float s[2][4];
#pragma unroll
    for (int t = 0; t < 2; t++) {
      s[t][0] = s[t][1] = s[t][2] = s[t][3] = 0.f;
#pragma unroll
      for (int k = 0; k < STEPS; k++) T::multiply(s[t], q[k], kw[t][2 * k], kw[t][2 * k + 1]);
    }
    float peak[2] = {top[0], top[1]};
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const u32 key = start + 8 * t + 2 * c + (i & 1);
        const bool seen = key < item.end && key < visible[i >> 1];
        s[t][i] = seen ? s[t][i] * scale : -INFINITE;
        peak[i >> 1] = fmaxf(peak[i >> 1], s[t][i]);
      }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      peak[h] = fmaxf(peak[h], shuffle_xor(peak[h], 1));
      peak[h] = fmaxf(peak[h], shuffle_xor(peak[h], 2));
    }
    if (any_lane(peak[0] > top[0] || peak[1] > top[1])) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float rescale = peak[h] > top[h] ? exp2_fast(top[h] - peak[h]) : 1.f;
        sum[h] *= rescale;
        top[h] = peak[h];
#pragma unroll
        for (int i = 0; i < TILES; i++) { out[i][2 * h] *= rescale; out[i][2 * h + 1] *= rescale; }
      }
    }
    u32 p[4];
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float base = top[h] == -INFINITE ? 0.f : top[h];
        const float a = exp2_fast(s[t][2 * h] - base), b = exp2_fast(s[t][2 * h + 1] - base);
        sum[h] += a + b;
        p[2 * t + h] = T::pack(a, b);
      }
#pragma unroll
    for (int j = 0; j < WIDE; j++)
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const u32 pick = i & 1 ? 0x7632 : 0x5410;
        const u32 b0 = permute(vw[0][4 * j + i / 2], vw[1][4 * j + i / 2], pick);
        const u32 b1 = permute(vw[2][4 * j + i / 2], vw[3][4 * j + i / 2], pick);
        T::multiply(out[8 * j + i], p, b0, b1);
      }
#pragma unroll
    for (int j = 0; j < WIDE_TAIL; j++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const u32 pick = i & 1 ? 0x7632 : 0x5410;
        const u32 b0 = permute(vw[0][4 * WIDE + j], vw[1][4 * WIDE + j], pick);
        const u32 b1 = permute(vw[2][4 * WIDE + j], vw[3][4 * WIDE + j], pick);
        T::multiply(out[8 * WIDE + 2 * j + i], p, b0, b1);
      }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) { sum[h] += shuffle_xor(sum[h], 1); sum[h] += shuffle_xor(sum[h], 2); }

  // The four warps' results, joined in shared memory: [warp][slot][D + 2].
  SHARED_BYTES(bytes);
  float* joined = (float*)bytes;
  constexpr int WIDTH = D + 2;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int slot = g + 8 * h;
    if (slot >= slots) continue;
    float* mine = joined + (warp * slots + slot) * WIDTH;
    if (c == 0) { mine[D] = top[h]; mine[D + 1] = sum[h]; }
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int column = 2 * c + e;
        const int dim = i < 8 * WIDE ? i / 8 * 64 + 8 * column + i % 8 : 64 * WIDE + (i - 8 * WIDE) / 2 * 16 + 2 * column + (i & 1);
        mine[dim] = out[i][2 * h + e];
      }
  }
  barrier();
  for (int slot = warp; slot < slots; slot += 4) {
    float peak = -INFINITE;
#pragma unroll
    for (int w = 0; w < 4; w++) peak = fmaxf(peak, joined[(w * slots + slot) * WIDTH + D]);
    float weights[4], total = 0.f;
#pragma unroll
    for (int w = 0; w < 4; w++) {
      const float* from = joined + (w * slots + slot) * WIDTH;
      weights[w] = from[D] == -INFINITE ? 0.f : exp2_fast(from[D] - peak);
      total += weights[w] * from[D + 1];
    }
    const u64 query = (u64)tokens[item.token + slot / group] * query_heads + item.head + slot % group;
    const bool direct = item.partial == DIRECT;
    const float inverse = direct ? 1.f / total : 1.f;
    float* partial = partials + (u64)(item.partial + slot) * WIDTH;
    for (int dim = lane; dim < D; dim += 32) {
      float x = 0.f;
#pragma unroll
      for (int w = 0; w < 4; w++) x += weights[w] * joined[(w * slots + slot) * WIDTH + dim];
      if (direct) write(output, query * D + dim, output_kind, x * inverse);
      else partial[dim] = x;
    }
    if (lane == 0) {
      if (direct) log_sums[query] = peak + log2_fast(total);
      else { partial[D] = peak; partial[D + 1] = total; }
    }
  }
}
#define ATTEND_FEW(T, name, D) \
  KERNEL(128, 1, attend_few_##name##_##D)(const Item* items, const u32* tokens, const u16* queries, float* partials, void* output, \
      float* log_sums, int output_kind, int group, int query_heads, float scale) { \
    attend_few<T, D>(items, tokens, queries, partials, output, log_sums, output_kind, group, query_heads, scale); \
  } \
  ENTRY(attend_few_##name##_##D)
