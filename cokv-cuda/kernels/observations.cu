// What compressors see of attention while a prompt is read.

// Attention of recorded queries `[window, query_heads, head_dim]` to a prompt: `[query_heads, window, keys]`, rows that sum to 1. A
// block for each query head and, in y, each query. Query w of them sees the first keys - window + w + 1, and not those below hidden.
template <class T>
DEVICE void window_attention(const u64* keys, const float* queries, float* to, int window, int length, int sliding, int group, int query_heads,
                             int head_dim, float scale) {
  typedef typename Stored<T>::Word Word;
  SHARED_BYTES(bytes);
  const int head = block(), at = block_y(), warp = thread() / 32, lane = thread() % 32;
  const int end = length - window + at + 1, begin = sliding > 0 && end > sliding ? end - sliding : 0;
  const Word* of_head = (const Word*)keys[head / group];
  const float* query = queries + ((u64)at * query_heads + head) * head_dim;
  float* row = to + ((u64)head * window + at) * length;
  float q[8], peak = -INFINITE;
#pragma unroll
  for (int d = 0; d < 8; d++) {
    const int dim = 2 * lane + d / 2 * 64 + d % 2;
    q[d] = dim < head_dim ? query[dim] : 0.f;
  }
  // Four keys at a time, whose sums over the warp do not wait for one another.
  for (int first = 4 * warp; first < length; first += threads() / 32 * 4) {
    const bool seen = first < end && first + 4 > begin;
    float s[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int d = 0; d < 4; d++) {
      const int dim = 2 * lane + 64 * d;
      if (seen && dim < head_dim) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
          float pair[2];
          Stored<T>::widen_pair(pair, of_head + (u64)min(first + k, length - 1) * head_dim + dim);
          s[k] += q[2 * d] * pair[0] + q[2 * d + 1] * pair[1];
        }
      }
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1)
#pragma unroll
      for (int k = 0; k < 4; k++) s[k] += shuffle_xor(s[k], mask);
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const int key = first + k;
      const float score = key >= begin && key < end ? s[k] * scale : -INFINITE;
      peak = fmaxf(peak, score);
      if (lane == k && key < length) row[key] = score;
    }
  }
  float* shared = (float*)bytes;
  if (lane == 0) shared[warp] = peak;
  barrier();
  for (int w = 0; w < threads() / 32; w++) peak = fmaxf(peak, shared[w]);
  float sum = 0.f;
  for (int key = thread(); key < length; key += threads()) sum += exp2_fast(row[key] - peak);
  sum = block_sum(sum, shared);
  for (int key = thread(); key < length; key += threads()) row[key] = exp2_fast(row[key] - peak) / sum;
}
#define WINDOW_ATTENTION(T, name) \
  KERNEL(256, 1, window_attention_##name)(const u64* keys, const float* queries, float* to, int window, int length, int sliding, int group, \
      int query_heads, int head_dim, float scale) { \
    window_attention<T>(keys, queries, to, window, length, sliding, group, query_heads, head_dim, scale); \
  } \
  ENTRY(window_attention_##name)
WINDOW_ATTENTION(F32, f32)
WINDOW_ATTENTION(F16, f16)
WINDOW_ATTENTION(BF16, bf16)

// Sums of some rows of that, `first` and the `rows - 1` after it: `[query_heads, keys]`. A block for every 1,024 keys, in y, of a
// query head. The oldest row is added first, as on the host.
KERNEL(256, 1, window_sums)(const float* attention, float* to, int window, int length, int first, int rows) {
  const float* of_head = attention + (u64)block() * window * length;
  for (int key = block_y() * 1024 + thread(); key < min(length, (int)(block_y() + 1) * 1024); key += threads()) {
    float sum = 0.f;
    for (int row = first; row < first + rows; row++) sum += of_head[(u64)row * length + key];
    to[(u64)block() * length + key] = sum;
  }
}
ENTRY(window_sums)

// Adds what a chunk's queries `[tokens, query_heads, head_dim]` give to each key: sums `[query_heads, prompt]`. A block for every 32
// keys and, in y, each query head; the chunk's first token comes after `seen` others. `log_sums` are those of attention, in base 2.
template <class T>
DEVICE void column_sums(const u64* keys, const float* queries, const float* log_sums, float* sums, int tokens, int seen, int prompt, int sliding,
                        int group, int query_heads, int head_dim, float scale) {
  typedef typename Stored<T>::Word Word;
  SHARED_BYTES(bytes);
  const int head = block_y(), first = block() * 32, width = head_dim + 1;
  float* key_tile = (float*)bytes;             // [32][width]
  float* query_tile = key_tile + 32 * width;   // [8][width]
  float* parts = query_tile + 8 * width;       // [8][32]
  const Word* of_head = (const Word*)keys[head / group];
  for (int at = thread(); at < 32 * head_dim; at += threads()) {
    const int key = first + at / head_dim;
    key_tile[at / head_dim * width + at % head_dim] = key < seen + tokens ? Stored<T>::widen(of_head[(u64)key * head_dim + at % head_dim]) : 0.f;
  }
  const int mine = thread() % 32, lane_query = thread() / 32, key = first + mine;
  float sum = 0.f;
  for (int start = max(0, first - seen) / 8 * 8; start < tokens; start += 8) {
    barrier();
    for (int at = thread(); at < 8 * head_dim; at += threads()) {
      const int token = start + at / head_dim;
      query_tile[at / head_dim * width + at % head_dim] = token < tokens ? queries[((u64)token * query_heads + head) * head_dim + at % head_dim] : 0.f;
    }
    barrier();
    const int token = start + lane_query, position = seen + token;
    if (token < tokens && key <= position && (sliding == 0 || key + sliding > position)) {
      float s = 0.f;
      for (int d = 0; d < head_dim; d++) s += key_tile[mine * width + d] * query_tile[lane_query * width + d];
      sum += exp2_fast(s * scale - log_sums[(u64)token * query_heads + head]);
    }
  }
  barrier();
  parts[lane_query * 32 + mine] = sum;
  barrier();
  if (thread() < 32 && first + thread() < seen + tokens) {
    float total = 0.f;
    for (int part = 0; part < 8; part++) total += parts[part * 32 + thread()];
    sums[(u64)head * prompt + first + thread()] += total;
  }
}
#define COLUMN_SUMS(T, name) \
  KERNEL(256, 1, column_sums_##name)(const u64* keys, const float* queries, const float* log_sums, float* sums, int tokens, int seen, int prompt, \
      int sliding, int group, int query_heads, int head_dim, float scale) { \
    column_sums<T>(keys, queries, log_sums, sums, tokens, seen, prompt, sliding, group, query_heads, head_dim, scale); \
  } \
  ENTRY(column_sums_##name)
COLUMN_SUMS(F32, f32)
COLUMN_SUMS(F16, f16)
COLUMN_SUMS(BF16, bf16)

// Sums of absolute values of rows, `to[row * step]`: a block for each row.
KERNEL(256, 1, absolute_sums)(const float* from, int width, float* to) {
  SHARED_BYTES(bytes);
  float sum = 0.f;
  for (int at = thread(); at < width; at += threads()) {
    const float x = from[(u64)block() * width + at];
    sum += x < 0.f ? -x : x;
  }
  sum = block_sum(sum, (float*)bytes);
  if (thread() == 0) to[block()] = sum;
}
ENTRY(absolute_sums)
