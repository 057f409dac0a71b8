// Rows of caches: numbers come in as f32, and move within memory.

// Where a row's new keys and values of a KV head go.
struct Append { u64 keys, values; };

// Appends keys and values of new tokens: a block for each token. `rows` and `places` say of each token which row it is of and how
// many tokens of the row come before it; `to` has an entry for each row and KV head.
template <class T>
DEVICE void append(const float* keys, u32 key_stride, const float* values, u32 value_stride, const Append* to, const u32* rows, const u32* places,
                   int kv_heads, int head_dim) {
  typedef typename Stored<T>::Word Word;
  const u64 token = block();
  const u32 row = rows[token], place = places[token];
  for (int at = thread(); at < kv_heads * head_dim; at += threads()) {
    const Append there = to[row * kv_heads + at / head_dim];
    const u64 number = (u64)place * head_dim + at % head_dim;
    ((Word*)there.keys)[number] = Stored<T>::narrow(keys[token * key_stride + at]);
    ((Word*)there.values)[number] = Stored<T>::narrow(values[token * value_stride + at]);
  }
}
#define APPEND(T, name) \
  KERNEL(256, 1, append_##name)(const float* keys, u32 key_stride, const float* values, u32 value_stride, const Append* to, const u32* rows, \
      const u32* places, int kv_heads, int head_dim) { \
    append<T>(keys, key_stride, values, value_stride, to, rows, places, kv_heads, head_dim); \
  } \
  ENTRY(append_##name)
APPEND(F32, f32)
APPEND(F16, f16)
APPEND(BF16, bf16)

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
