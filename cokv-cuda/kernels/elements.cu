// What is done number by number between products. Matrices have rows `stride` numbers apart.

// Rows of a table, widened: a block for each token.
KERNEL(256, 1, embed)(const void* table, int kind, const u32* tokens, float* to, int width) {
  const u64 from = (u64)tokens[block()] * width;
  for (int at = thread(); at < width; at += threads()) to[(u64)block() * width + at] = read(table, from + at, kind);
}
ENTRY(embed)

// Some rows of a matrix: a block for each.
KERNEL(256, 1, take_rows)(const void* from, int kind, u32 stride, const u32* rows, void* to, int width) {
  const u64 first = (u64)rows[block()] * stride;
  for (int at = thread(); at < width; at += threads()) write(to, (u64)block() * width + at, kind, read(from, first + at, kind));
}
ENTRY(take_rows)

// Root-mean-square norm of runs of `length` numbers, of which a row has `runs`: a block for each run. Where everything is a multiple of
// four numbers (`wide`), four are read together.
KERNEL(256, 1, rms_norm)(const float* from, u32 stride, const float* weight, void* to, int kind, int length, int runs, float epsilon, int wide) {
  SHARED_BYTES(bytes);
  const float* x = from + (u64)(block() / runs) * stride + (u64)(block() % runs) * length;
  const u64 out = (u64)block() * length;
  float square = 0.f, four[4], weights[4];
  if (wide)
    for (int at = 4 * thread(); at < length; at += 4 * threads()) {
      load4(four, x + at);
      square += four[0] * four[0] + four[1] * four[1] + four[2] * four[2] + four[3] * four[3];
    }
  else
    for (int at = thread(); at < length; at += threads()) square += x[at] * x[at];
  square = block_sum(square, (float*)bytes);
  const float factor = 1.f / root(square / length + epsilon);
  if (wide)
    for (int at = 4 * thread(); at < length; at += 4 * threads()) {
      load4(four, x + at);
      load4(weights, weight + at);
      write_pair(to, out + at, kind, four[0] * factor * weights[0], four[1] * factor * weights[1]);
      write_pair(to, out + at + 2, kind, four[2] * factor * weights[2], four[3] * factor * weights[3]);
    }
  else
    for (int at = thread(); at < length; at += threads()) write(to, out + at, kind, x[at] * factor * weight[at]);
}
ENTRY(rms_norm)

DEVICE float silu(float x) { return x / (1.f + exp_exact(-x)); }

// silu(gate) * up: a block for every 1,024 numbers of a row; four together where everything is a multiple of them.
KERNEL(256, 1, silu_times)(const float* gate, const float* up, u32 stride, void* to, int kind, int width, int wide) {
  const u64 from = (u64)block() * stride, out = (u64)block() * width;
  const int first = block_y() * 1024;
  if (wide) {
    const int at = first + 4 * thread();
    if (at >= width) return;
    float a[4], b[4];
    load4(a, gate + from + at);
    load4(b, up + from + at);
    write_pair(to, out + at, kind, silu(a[0]) * b[0], silu(a[1]) * b[1]);
    write_pair(to, out + at + 2, kind, silu(a[2]) * b[2], silu(a[3]) * b[3]);
    return;
  }
  for (int at = first + thread(); at < min(width, first + 1024); at += threads())
    write(to, out + at, kind, silu(gate[from + at]) * up[from + at]);
}
ENTRY(silu_times)

// Another type: likewise.
KERNEL(256, 1, convert)(const void* from, int from_kind, u32 stride, void* to, int kind, int width) {
  const u64 row = block();
  for (int at = block_y() * 1024 + thread(); at < min(width, (int)(block_y() + 1) * 1024); at += threads())
    write(to, row * width + at, kind, read(from, row * stride + at, from_kind));
}
ENTRY(convert)

// A bias for every column: likewise.
KERNEL(256, 1, add_bias)(float* to, u32 stride, const float* bias, int width) {
  const u64 row = block();
  for (int at = block_y() * 1024 + thread(); at < min(width, (int)(block_y() + 1) * 1024); at += threads())
    to[row * stride + at] += bias[at];
}
ENTRY(add_bias)

// Numbers drawn from their index, as `Draw` of cokv-models draws them: 1,024 a block.
KERNEL(256, 1, draw)(void* to, int kind, u64 count, u64 seed, float deviation) {
  for (u64 at = (u64)block() * 1024 + thread(); at < min(count, ((u64)block() + 1) * 1024); at += threads()) {
    u64 x = (seed ^ at) + 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    const float uniform = (float)(u32)(x >> 40) * (1.f / 8388608.f) - 1.f;  // 24 bits, in [-1, 1)
    // In bf16, whatever they are held in.
    write(to, at, kind, BF16::widen((u16)BF16::pack(uniform * deviation * 1.7320508f, 0.f)));
  }
}
ENTRY(draw)
