// Joins partial results: a block for each join, a warp for each of its queries.
KERNEL(128, 1, join)(const Join* joins, const u32* tokens, const float* partials, void* output, float* log_sums, int output_kind,
                     int group, int query_heads, int head_dim) {
  const Join join = joins[block()];
  const int width = head_dim + 2, warp = thread() / 32, lane = thread() % 32;
  for (u32 slot = warp; slot < join.tokens * group; slot += 4) {
    float peak = -INFINITE;
    for (int set = 0; set < 2; set++)
      for (u32 i = 0; i < join.count[set]; i++)
        peak = fmaxf(peak, partials[(u64)(join.first[set] + i * join.stride[set] + slot) * width + head_dim]);
    float sum = 0.f;
    for (int set = 0; set < 2; set++)
      for (u32 i = 0; i < join.count[set]; i++) {
        const float* from = partials + (u64)(join.first[set] + i * join.stride[set] + slot) * width;
        sum += from[head_dim] == -INFINITE ? 0.f : exp2_fast(from[head_dim] - peak) * from[head_dim + 1];
      }
    const u64 query = (u64)tokens[join.token + slot / group] * query_heads + join.head + slot % group;
    for (int dim = lane; dim < head_dim; dim += 32) {
      float total = 0.f;
      for (int set = 0; set < 2; set++)
        for (u32 i = 0; i < join.count[set]; i++) {
          const float* from = partials + (u64)(join.first[set] + i * join.stride[set] + slot) * width;
          total += from[head_dim] == -INFINITE ? 0.f : exp2_fast(from[head_dim] - peak) * from[dim];
        }
      write(output, query * head_dim + dim, output_kind, total / sum);
    }
    if (lane == 0) log_sums[query] = peak + log2_fast(sum);
  }
}
ENTRY(join)
