// Tables that the planner writes and attention reads (`src/plan/`, which has the same structures).

// Some queries of one KV head against a range of its keys: one block of `attend_few` or `attend_many`.
//
// Keys are counted from the beginning of the head's cache, which lies in up to three places: two slices of frozen segments and
// rows of its own. Addresses are moved by what comes before, so that key k of a part is at its address + k rows.
struct Item {
  u64 keys[3], values[3];
  u32 until[2];        // keys below until[0] are of the first part, below until[1] of the second
  u32 begin, end;      // keys of this item
  u32 token, tokens;   // its tokens: places in the table of tokens; each brings the queries of one group
  u32 visible, step;   // keys that the first token sees, and how many more each next one does (0 or 1)
  u32 head;            // first query head of the group
  u32 partial;         // first of its partial results, one for each query, or DIRECT
  u32 hidden;          // place in the table of keys that each token no longer sees, or DIRECT where all are seen
  u32 unused;
};

// Partial results of some queries from two sets of items: those of a slice that rows share, and those of the row alone.
struct Join {
  u32 first[2], count[2], stride[2];  // partial result i of query s is first + i * stride + s
  u32 token, tokens;                  // places in the table of tokens
  u32 head;
  u32 unused;
};

// Where key `key` lies, rows of `bytes` bytes.
DEVICE const u8* row_of(const u64 (&parts)[3], const u32 (&until)[2], u32 key, u32 bytes) {
  const u64 part = key < until[0] ? parts[0] : key < until[1] ? parts[1] : parts[2];
  return (const u8*)(part + (u64)key * bytes);
}
