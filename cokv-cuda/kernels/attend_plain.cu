// Attention in f32 on caches of any type and heads of any size up to 256, with sliding windows: a block for each query of an item.
// It is what the fast kernels are held against, and what runs where there is none.
template <class T>
DEVICE void attend_plain(const Item* items, const u32* tokens, const u32* hidden, const float* queries, float* partials, void* output,
                         float* log_sums, int output_kind, int group, int query_heads, int head_dim, float scale) {
  typedef typename Stored<T>::Word Word;
  const Item item = items[block()];
  const u32 slot = block_y();
  if (slot >= item.tokens * group) return;
  const int warp = thread() / 32, lane = thread() % 32;
  const u32 token = slot / group;
  const u64 query = (u64)tokens[item.token + token] * query_heads + item.head + slot % group;
  const u32 end = min(item.end, item.visible + token * item.step);
  const u32 begin = item.hidden == DIRECT ? item.begin : max(item.begin, hidden[item.hidden + token]);
  float q[8], out[8], top = -INFINITE, sum = 0.f;
  for (int d = 0; d < 8; d++) {
    out[d] = 0.f;
    q[d] = lane + 32 * d < head_dim ? queries[query * head_dim + lane + 32 * d] : 0.f;
  }
  for (u32 key = begin + warp; key < end; key += 4) {
    const Word* k = (const Word*)row_of(item.keys, item.until, key, head_dim * sizeof(Word));
    const Word* v = (const Word*)row_of(item.values, item.until, key, head_dim * sizeof(Word));
    float s = 0.f;
    for (int d = 0; d < 8; d++) if (lane + 32 * d < head_dim) s += q[d] * Stored<T>::widen(k[lane + 32 * d]);
    s = warp_sum(s) * scale;
    const float peak = fmaxf(top, s);
    const float rescale = top == -INFINITE ? 0.f : exp2_fast(top - peak), weight = exp2_fast(s - peak);
    top = peak;
    sum = sum * rescale + weight;
    for (int d = 0; d < 8; d++) if (lane + 32 * d < head_dim) out[d] = out[d] * rescale + weight * Stored<T>::widen(v[lane + 32 * d]);
  }
  SHARED_BYTES(bytes);
  float* joined = (float*)bytes;  // [warp][head_dim + 2]
  const int width = head_dim + 2;
  for (int d = 0; d < 8; d++) if (lane + 32 * d < head_dim) joined[warp * width + lane + 32 * d] = out[d];
  if (lane == 0) { joined[warp * width + head_dim] = top; joined[warp * width + head_dim + 1] = sum; }
  barrier();
  float peak = -INFINITE;
  for (int w = 0; w < 4; w++) peak = fmaxf(peak, joined[w * width + head_dim]);
  float total = 0.f;
  for (int w = 0; w < 4; w++) {
    const float* from = joined + w * width;
    total += from[head_dim] == -INFINITE ? 0.f : exp2_fast(from[head_dim] - peak) * from[head_dim + 1];
  }
  for (int dim = thread(); dim < head_dim; dim += 128) {
    float x = 0.f;
    for (int w = 0; w < 4; w++) {
      const float* from = joined + w * width;
      x += from[head_dim] == -INFINITE ? 0.f : exp2_fast(from[head_dim] - peak) * from[dim];
    }
    if (item.partial == DIRECT) write(output, query * head_dim + dim, output_kind, x / total);
    else partials[(u64)(item.partial + slot) * width + dim] = x;
  }
  if (thread() == 0) {
    if (item.partial == DIRECT) log_sums[query] = peak + log2_fast(total);
    else {
      partials[(u64)(item.partial + slot) * width + head_dim] = peak;
      partials[(u64)(item.partial + slot) * width + head_dim + 1] = total;
    }
  }
}
#define ATTEND_PLAIN(T, name) \
  KERNEL(128, 1, attend_plain_##name)(const Item* items, const u32* tokens, const u32* hidden, const float* queries, float* partials, \
      void* output, float* log_sums, int output_kind, int group, int query_heads, int head_dim, float scale) { \
    attend_plain<T>(items, tokens, hidden, queries, partials, output, log_sums, output_kind, group, query_heads, head_dim, scale); \
  } \
  ENTRY(attend_plain_##name)
ATTEND_PLAIN(F32, f32)
ATTEND_PLAIN(F16, f16)
ATTEND_PLAIN(BF16, bf16)
