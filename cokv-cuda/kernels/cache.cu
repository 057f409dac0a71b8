// Rows of caches: numbers come in as f32, and move within memory.

// Where a row's new keys and values of a KV head go.
struct Append { u64 keys, values; };

// Turns queries and keys of new tokens by their positions, appends keys and values, and lays queries out as attention reads them: a
// block for each token. Pairs are neighbours, or the two halves of a head. `rows` and `places` say of each token which row it is of
// and how many tokens of the row come before it; `to` has an entry for each row and KV head. Queries go to `narrow`, in the cache's
// type, and to `wide`, in f32, where these are not 0: `[tokens, query_heads, head_dim]`.
template <class T>
DEVICE void turn_append(const float* queries, const float* keys, const float* values, u32 query_stride, u32 key_stride, u32 value_stride,
                        const float* cosines, const float* sines, int neighbours, const Append* to, const u32* rows, const u32* places,
                        void* narrow, float* wide, int query_heads, int kv_heads, int head_dim) {
  typedef typename Stored<T>::Word Word;
  const u64 token = block();
  const u32 row = rows[token], place = places[token];
  const int half = head_dim / 2, query_pairs = query_heads * half, key_pairs = kv_heads * half;
  for (int at = thread(); at < query_pairs + key_pairs; at += threads()) {
    const bool query = at < query_pairs;
    const int number = query ? at : at - query_pairs, head = number / half, pair = number % half;
    const int first = neighbours ? 2 * pair : pair, second = neighbours ? 2 * pair + 1 : pair + half;
    const float* from = (query ? queries + token * query_stride : keys + token * key_stride) + head * head_dim;
    const float a = from[first], b = from[second];
    const float cosine = cosines[token * half + pair], sine = sines[token * half + pair];
    const float x = a * cosine - b * sine, y = b * cosine + a * sine;
    const u64 start = (token * query_heads + head) * head_dim;
    Word* const own = query ? (narrow ? (Word*)narrow + start : 0) : (Word*)to[row * kv_heads + head].keys + (u64)place * head_dim;
    if (own) { own[first] = Stored<T>::narrow(x); own[second] = Stored<T>::narrow(y); }
    if (query && wide) { wide[start + first] = x; wide[start + second] = y; }
  }
  for (int at = thread(); at < kv_heads * head_dim; at += threads()) {
    Word* const value = (Word*)to[row * kv_heads + at / head_dim].values + (u64)place * head_dim;
    value[at % head_dim] = Stored<T>::narrow(values[token * value_stride + at]);
  }
}
#define TURN_APPEND(T, name) \
  KERNEL(256, 1, turn_append_##name)(const float* queries, const float* keys, const float* values, u32 query_stride, u32 key_stride, \
      u32 value_stride, const float* cosines, const float* sines, int neighbours, const Append* to, const u32* rows, const u32* places, \
      void* narrow, float* wide, int query_heads, int kv_heads, int head_dim) { \
    turn_append<T>(queries, keys, values, query_stride, key_stride, value_stride, cosines, sines, neighbours, to, rows, places, narrow, wide, \
        query_heads, kv_heads, head_dim); \
  } \
  ENTRY(turn_append_##name)
TURN_APPEND(F32, f32)
TURN_APPEND(F16, f16)
TURN_APPEND(BF16, bf16)

// Rows that one head copies from another place: `count` of them, those listed from `listed` on or, where that is DIRECT, one after
// the other.
struct Gather { u64 from, to; u32 listed, count; };

// Copies rows of `words` words: 16 rows a block, blocks in y for more of them.
KERNEL(128, 1, gather)(const Gather* gathers, const u32* rows, int words) {
  const Gather gather = gathers[block()];
  for (u32 row = block_y() * 16; row < min(gather.count, (block_y() + 1) * 16); row++) {
    const u64 from = gather.listed == DIRECT ? row : rows[gather.listed + row];
    for (int at = thread(); at < words; at += threads()) ((u32*)gather.to)[(u64)row * words + at] = ((const u32*)gather.from)[from * words + at];
  }
}
ENTRY(gather)
