// What rows ask of their logits: a block of up to 1,024 threads for each place.

struct Best { float logit; u32 token; };
DEVICE bool better(float a, u32 token_a, float b, u32 token_b) { return a > b || (a == b && token_a < token_b); }

// Logarithm of the sum of exponentials: sums of a thread in f32, of all in f64.
DEVICE double log_sum_exp(const float* logits, int vocabulary, float peak, double* shared) {
  float sum = 0.f;
  for (int at = thread(); at < vocabulary; at += threads()) sum += exp_exact(logits[at] - peak);
  return (double)peak + log_exact(block_sum((double)sum, shared));
}
DEVICE float peak_of(const float* logits, int vocabulary, float* shared) {
  float peak = -INFINITE;
  for (int at = thread(); at < vocabulary; at += threads()) peak = fmaxf(peak, logits[at]);
  peak = warp_max(peak);
  barrier();
  if (thread() % 32 == 0) shared[thread() / 32] = peak;
  barrier();
  for (int warp = 0; warp < threads() / 32; warp++) peak = fmaxf(peak, shared[warp]);
  return peak;
}

// Whether all numbers of a place's hidden state and logits are finite: 1 or 0.
KERNEL(1024, 1, all_finite)(const void* hidden, int kind, int width, const float* logits, int vocabulary, u32* result) {
  SHARED_BYTES(bytes);
  bool wrong = false;
  for (int at = thread(); at < width; at += threads()) wrong |= !finite(read(hidden, (u64)block() * width + at, kind));
  for (int at = thread(); at < vocabulary; at += threads()) wrong |= !finite(logits[(u64)block() * vocabulary + at]);
  const float sum = block_sum(wrong ? 1.f : 0.f, (float*)bytes);
  if (thread() == 0) result[block()] = sum == 0.f;
}
ENTRY(all_finite)

// The likeliest tokens, best first, the lowest id first among equals, and log-sum-exp. `places` are rows of the logits.
KERNEL(1024, 1, likeliest)(const float* logits, int vocabulary, const u32* places, int count, Best* best, double* log_sums) {
  SHARED_BYTES(bytes);
  const float* row = logits + (u64)places[block()] * vocabulary;
  float last = INFINITE, peak = 0.f;
  u32 last_token = 0;
  for (int found = 0; found < count; found++) {
    float logit = -INFINITE;
    u32 token = DIRECT;
    for (int at = thread(); at < vocabulary; at += threads())
      if ((found == 0 || better(last, last_token, row[at], at)) && better(row[at], at, logit, token)) { logit = row[at]; token = at; }
    for (int mask = 16; mask > 0; mask >>= 1) {
      const float other = shuffle_xor(logit, mask);
      const u32 other_token = shuffle_xor(token, mask);
      if (better(other, other_token, logit, token)) { logit = other; token = other_token; }
    }
    Best* of_warps = (Best*)bytes;
    barrier();
    if (thread() % 32 == 0) { of_warps[thread() / 32].logit = logit; of_warps[thread() / 32].token = token; }
    barrier();
    for (int warp = 0; warp < threads() / 32; warp++)
      if (better(of_warps[warp].logit, of_warps[warp].token, logit, token)) { logit = of_warps[warp].logit; token = of_warps[warp].token; }
    if (thread() == 0) { best[block() * count + found].logit = logit; best[block() * count + found].token = token; }
    if (found == 0) peak = logit;
    last = logit;
    last_token = token;
  }
  barrier();
  const double sum = log_sum_exp(row, vocabulary, peak, (double*)bytes);
  if (thread() == 0) log_sums[block()] = sum;
}
ENTRY(likeliest)

// A place that is compared with what follows and with another distribution.
struct Place { u64 logits, other; u32 target, unused; };

// Log-likelihood of the target (DIRECT: none) and the divergence of the other distribution from this one (0: none), in nats.
KERNEL(1024, 1, judge)(const Place* places, int vocabulary, double* results) {
  SHARED_BYTES(bytes);
  const Place place = places[block()];
  const float* q = (const float*)place.logits;
  const double normaliser = log_sum_exp(q, vocabulary, peak_of(q, vocabulary, (float*)bytes), (double*)bytes);
  double divergence = 0.0;
  if (place.other) {
    const float* p = (const float*)place.other;
    const double other = log_sum_exp(p, vocabulary, peak_of(p, vocabulary, (float*)bytes), (double*)bytes);
    const double shift = normaliser - other;
    const float down = (float)other;
    for (int at = thread(); at < vocabulary; at += threads())
      divergence += (double)exp_exact(p[at] - down) * ((double)p[at] - (double)q[at] + shift);
    divergence = block_sum(divergence, (double*)bytes);
  }
  if (thread() == 0) {
    results[2 * block()] = place.target == DIRECT ? 0.0 : (double)q[place.target] - normaliser;
    results[2 * block() + 1] = divergence > 0.0 ? divergence : 0.0;
  }
}
ENTRY(judge)
