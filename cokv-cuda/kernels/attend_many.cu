// Attention of up to 64 MT queries to a range of keys: prefill, teacher forcing, rows on a slice that they share. Bound by products.
//
// Each of four warps has 16 MT queries. Tiles of 64 keys and their values come into shared memory, two of each, one arriving while
// the other is in use; chunks of 16 bytes are swizzled so that the rows of a matrix lie in different banks. Weights stay in
// registers between the two products (FlashAttention-2, arXiv 2307.08691, section 3).
#define TILE 64
template <int D> DEVICE constexpr int row_width() { return D % 64 == 0 ? D : D + 8; }
template <int D> DEVICE int chunk_at(int row, int chunk) {
  return D % 64 == 0 ? row * D + ((chunk ^ (row & 7)) * 8) : row * row_width<D>() + chunk * 8;
}

template <int D> DEVICE void fetch(u16* to, const u64 (&parts)[3], const u32 (&until)[2], u32 start, u32 end) {
  constexpr int CHUNKS = D / 8, ROWS = 128 / CHUNKS;
  // A tile within one part and before the end has one address; where threads take the same chunk of every eighth row, they step alike.
  const bool first = start + TILE <= until[0], second = start >= until[0] && start + TILE <= until[1], own = start >= until[1];
  if (ROWS % 8 == 0 && start + TILE <= end && (first || second || own)) {
    const int row = thread() / CHUNKS, chunk = thread() % CHUNKS;
    const u16* from = (const u16*)(first ? parts[0] : second ? parts[1] : parts[2]) + (u64)(start + row) * D + chunk * 8;
    u16* mine = to + chunk_at<D>(row, chunk);
#pragma unroll
    for (int at = 0; at < TILE; at += ROWS) copy_async(mine + at * row_width<D>(), from + at * D);
    return;
  }
  for (int at = thread(); at < TILE * CHUNKS; at += 128) {
    const int row = at / CHUNKS, chunk = at % CHUNKS;
    const u16* from = (const u16*)row_of(parts, until, min(start + row, end - 1), 2 * D);
    copy_async(to + chunk_at<D>(row, chunk), from + chunk * 8);
  }
}

template <class T, int D, int MT>
DEVICE void attend_many(const Item* items, const u32* tokens, const u16* queries, float* partials, void* output, float* log_sums,
                        int output_kind, int group, int query_heads, float scale) {
  constexpr int STEPS = D / 16, TILES = D / 8, WIDTH = row_width<D>();
  const Item& item = items[block()];
  const int warp = thread() >> 5, lane = thread() & 31, g = lane >> 2, c = lane & 3;
  SHARED_BYTES(bytes);
  u16* const keys = (u16*)bytes;                                     // [2][TILE][WIDTH]
  u16* const values = keys + 2 * TILE * WIDTH;                       // [2][TILE][WIDTH]
  u16* const own = values + 2 * TILE * WIDTH + warp * MT * 16 * WIDTH;  // this warp's queries

  const int slots = item.tokens * group;
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int at = (warp * MT + m) * 16 + g + 8 * h;
      const bool used = at < slots;
      const u32 token = used ? at / group : 0, member = used ? at % group : 0;
      const u16* row = queries + ((u64)tokens[item.token + token] * query_heads + item.head + member) * D;
      for (int k = c; k < D / 8; k += 4) copy_async(own + chunk_at<D>(m * 16 + g + 8 * h, k), row + 8 * k);
    }
  float out[MT][TILES][4], top[MT][2], sum[MT][2];
#pragma unroll
  for (int m = 0; m < MT; m++) {
    top[m][0] = top[m][1] = -INFINITE;
    sum[m][0] = sum[m][1] = 0.f;
#pragma unroll
    for (int i = 0; i < TILES; i++) out[m][i][0] = out[m][i][1] = out[m][i][2] = out[m][i][3] = 0.f;
  }

  const u32 begin = item.begin, end = item.end;
  fetch<D>(keys, item.keys, item.until, begin, end); copy_commit();
  fetch<D>(values, item.values, item.until, begin, end); copy_commit();
  int buffer = 0;
  for (u32 start = begin; start < end; start += TILE, buffer ^= 1) {
    const bool more = start + TILE < end;
    const u16* const key_tile = keys + buffer * TILE * WIDTH;
    const u16* const value_tile = values + buffer * TILE * WIDTH;
    // The other buffer's keys are free since the barrier before the last values.
    if (more) fetch<D>(keys + (buffer ^ 1) * TILE * WIDTH, item.keys, item.until, start + TILE, end);
    copy_commit();
    // These keys are there, their values may still come; everybody is done with the tile before.
    copy_wait<2>();
    barrier();
    float s[MT][TILE / 8][4];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int n = 0; n < TILE / 8; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0.f;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      u32 a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) load_matrices(a[m], own + chunk_at<D>(m * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
      for (int n = 0; n < TILE / 8; n += 2) {
        u32 b[4];
        load_matrices(b, key_tile + chunk_at<D>(n * 8 + (lane & 7) + (lane >> 4) * 8, 2 * k + ((lane >> 3) & 1)));
#pragma unroll
        for (int m = 0; m < MT; m++) { T::multiply(s[m][n], a[m], b[0], b[1]); T::multiply(s[m][n + 1], a[m], b[2], b[3]); }
      }
    }
    const bool masked = start + TILE > item.visible || start + TILE > end;
    u32 p[MT][TILE / 16][4];
#pragma unroll
    for (int m = 0; m < MT; m++) {
      float peak[2] = {top[m][0], top[m][1]};
      if (masked) {
        // What each of the two queries sees is computed again: registers are short, and few tiles are masked.
        u32 visible[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int at = (warp * MT + m) * 16 + g + 8 * h;
          visible[h] = at < slots ? item.visible + at / group * item.step : 0;
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const u32 key = start + 8 * n + 2 * c + (i & 1);
            if (key >= end || key >= visible[i >> 1]) s[m][n][i] = -INFINITE;
          }
      }
#pragma unroll
      for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) peak[i >> 1] = fmaxf(peak[i >> 1], s[m][n][i]);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        peak[h] = fmaxf(peak[h], shuffle_xor(peak[h], 1));
        peak[h] = fmaxf(peak[h], shuffle_xor(peak[h], 2));
        const float base = peak[h] == -INFINITE ? 0.f : peak[h] * scale;
        // Peaks rise seldom behind the first tiles.
        if (any_lane(peak[h] > top[m][h])) {
          const float rescale = top[m][h] == -INFINITE ? 0.f : exp2_fast(top[m][h] * scale - base);
          sum[m][h] *= rescale;
#pragma unroll
          for (int i = 0; i < TILES; i++) { out[m][i][2 * h] *= rescale; out[m][i][2 * h + 1] *= rescale; }
        }
        top[m][h] = peak[h];
        float more_sum = 0.f;
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
          const float a = exp2_fast(s[m][n][2 * h] * scale - base), b = exp2_fast(s[m][n][2 * h + 1] * scale - base);
          more_sum += a + b;
          p[m][n / 2][(n & 1) * 2 + h] = T::pack(a, b);
        }
        sum[m][h] += more_sum;
      }
    }
    copy_wait<1>();
    barrier();
    if (more) fetch<D>(values + (buffer ^ 1) * TILE * WIDTH, item.values, item.until, start + TILE, end);
    copy_commit();
#pragma unroll
    for (int k = 0; k < TILE / 16; k++)
#pragma unroll
      for (int i = 0; i < TILES; i += 2) {
        u32 b[4];
        load_matrices_transposed(b, value_tile + chunk_at<D>(k * 16 + (lane & 15), i + (lane >> 4)));
#pragma unroll
        for (int m = 0; m < MT; m++) { T::multiply(out[m][i], p[m][k], b[0], b[1]); T::multiply(out[m][i + 1], p[m][k], b[2], b[3]); }
      }
  }
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float total = sum[m][h];
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      const int at = (warp * MT + m) * 16 + g + 8 * h;
      if (at >= slots) continue;
      if (item.partial == DIRECT) {
        const u64 query = (u64)tokens[item.token + at / group] * query_heads + item.head + at % group;
        const float inverse = 1.f / total;
        if (c == 0) log_sums[query] = top[m][h] * scale + log2_fast(total);
#pragma unroll
        for (int i = 0; i < TILES; i++) write_pair(output, query * D + 8 * i + 2 * c, output_kind, out[m][i][2 * h] * inverse, out[m][i][2 * h + 1] * inverse);
      } else {
        float* to = partials + (u64)(item.partial + at) * (D + 2);
        if (c == 0) { to[D] = top[m][h] * scale; to[D + 1] = total; }
#pragma unroll
        for (int i = 0; i < TILES; i++) { to[8 * i + 2 * c] = out[m][i][2 * h]; to[8 * i + 2 * c + 1] = out[m][i][2 * h + 1]; }
      }
    }
}
#define ATTEND_MANY(T, name, D, MT) \
  KERNEL(128, 2, attend_many_##name##_##D##_##MT)(const Item* items, const u32* tokens, const u16* queries, float* partials, \
      void* output, float* log_sums, int output_kind, int group, int query_heads, float scale) { \
    attend_many<T, D, MT>(items, tokens, queries, partials, output, log_sums, output_kind, group, query_heads, scale); \
  } \
  ENTRY(attend_many_##name##_##D##_##MT)
