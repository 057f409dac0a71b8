//! Faults of kinds that are made.

/// Pieces of a kernel that are replaced.
pub struct Fault {
    pub name: &'static str,
    pub file: &'static str,
    /// Pieces, each of which is there once, and what comes instead.
    pub changes: &'static [(&'static str, &'static str)],
}

const KEYS_ARE_THERE: &str = "copy_wait<2>();\n    barrier();\n    float s";
const VALUES_ARE_THERE: &str = "copy_wait<1>();\n    barrier();\n    if (more) fetch<D>(values";

#[rustfmt::skip]
pub const ATTENTION: &[Fault] = &[
    // Copies and barriers.
    Fault { name: "no wait for keys", file: "attend_many.cu", changes: &[(KEYS_ARE_THERE, "barrier();\n    float s")] },
    Fault { name: "no wait for values", file: "attend_many.cu", changes: &[(VALUES_ARE_THERE, "barrier();\n    if (more) fetch<D>(values")] },
    Fault { name: "wait for keys, a group too few", file: "attend_many.cu", changes: &[(KEYS_ARE_THERE, "copy_wait<3>();\n    barrier();\n    float s")] },
    Fault { name: "wait for values, a group too few", file: "attend_many.cu", changes: &[(VALUES_ARE_THERE, "copy_wait<2>();\n    barrier();\n    if (more) fetch<D>(values")] },
    Fault { name: "no barrier before keys", file: "attend_many.cu", changes: &[(KEYS_ARE_THERE, "copy_wait<2>();\n    float s")] },
    Fault { name: "no barrier before values", file: "attend_many.cu", changes: &[(VALUES_ARE_THERE, "copy_wait<1>();\n    if (more) fetch<D>(values")] },
    Fault { name: "a group that is not committed", file: "attend_many.cu", changes: &[("fetch<D>(values, item.values, item.until, begin, end); copy_commit();", "fetch<D>(values, item.values, item.until, begin, end);")] },
    Fault { name: "one buffer for all tiles", file: "attend_many.cu", changes: &[("buffer ^= 1", "buffer ^= 0")] },
    Fault {
        name: "one buffer for values",
        file: "attend_many.cu",
        changes: &[("value_tile = values + buffer * TILE * WIDTH", "value_tile = values"), ("fetch<D>(values + (buffer ^ 1) * TILE * WIDTH", "fetch<D>(values")],
    },
    Fault { name: "barrier in divergent code", file: "attend_many.cu", changes: &[("const bool masked =", "if (warp == 0) barrier();\n    const bool masked =")] },
    Fault { name: "no barrier before the warps' results are joined", file: "attend_few.cu", changes: &[("  barrier();\n", "")] },
    Fault { name: "barrier in divergent code", file: "attend_few.cu", changes: &[("float s[2][4];", "barrier();\n    float s[2][4];")] },
    Fault { name: "any_lane in divergent code", file: "attend_few.cu", changes: &[("if (any_lane(peak[0] > top[0] || peak[1] > top[1]))", "if (peak[0] > top[0] && any_lane(true))")] },
    Fault { name: "no barrier before the warps' results are joined", file: "attend_plain.cu", changes: &[("  barrier();\n", "")] },
    // Which keys are seen.
    Fault { name: "mask off by one at what a token sees", file: "attend_many.cu", changes: &[("key >= visible[i >> 1]", "key > visible[i >> 1]")] },
    Fault { name: "mask off by one at the end", file: "attend_many.cu", changes: &[("key >= end ||", "key > end ||")] },
    Fault { name: "tiles off by one that need no mask", file: "attend_many.cu", changes: &[("start + TILE > item.visible ||", "start + TILE > item.visible + 1 ||")] },
    Fault { name: "tiles off by one at the end that need no mask", file: "attend_many.cu", changes: &[("|| start + TILE > end;", "|| start + TILE > end + 1;")] },
    Fault { name: "keys beyond the end are read", file: "attend_many.cu", changes: &[("min(start + row, end - 1)", "start + row")] },
    Fault { name: "mask off by one at what a token sees", file: "attend_few.cu", changes: &[("key < visible[i >> 1]", "key <= visible[i >> 1]")] },
    Fault { name: "mask off by one at the end", file: "attend_few.cu", changes: &[("key < item.end &&", "key <= item.end &&")] },
    Fault { name: "keys beyond the end are read", file: "attend_few.cu", changes: &[("min(start + g + 8 * t, item.end - 1)", "start + g + 8 * t")] },
    Fault { name: "values beyond the end are read", file: "attend_few.cu", changes: &[("min(start + 2 * c + (r & 1) + 8 * (r >> 1), item.end - 1)", "start + 2 * c + (r & 1) + 8 * (r >> 1)")] },
    Fault { name: "the last key is not read", file: "attend_few.cu", changes: &[("item.end - 1);\n      const u16* row = (const u16*)row_of(item.keys", "item.end - 2);\n      const u16* row = (const u16*)row_of(item.keys")] },
    Fault { name: "all tokens see the same", file: "attend_few.cu", changes: &[("item.visible + token * item.step", "item.visible")] },
    Fault { name: "hidden keys are seen", file: "attend_plain.cu", changes: &[("max(item.begin, hidden[item.hidden + token])", "item.begin")] },
    // Where they lie.
    Fault { name: "first part too long", file: "tables.h", changes: &[("key < until[0]", "key <= until[0]")] },
    Fault { name: "second part too long", file: "tables.h", changes: &[("key < until[1]", "key <= until[1]")] },
    Fault { name: "first part too long by a key", file: "attend_many.cu", changes: &[("start + TILE <= until[0],", "start + TILE <= until[0] + 1,")] },
    Fault { name: "second part begins a key too early", file: "attend_many.cu", changes: &[("second = start >= until[0]", "second = start + 1 >= until[0]")] },
    Fault { name: "second part too long by a key", file: "attend_many.cu", changes: &[("start + TILE <= until[1],", "start + TILE <= until[1] + 1,")] },
    Fault { name: "third part begins a key too early", file: "attend_many.cu", changes: &[("own = start >= until[1]", "own = start + 1 >= until[1]")] },
    Fault { name: "swizzle forgotten where tiles are whole", file: "attend_many.cu", changes: &[("mine = to + chunk_at<D>(row, chunk)", "mine = to + row * row_width<D>() + chunk * 8")] },
    Fault { name: "two chunks in one place", file: "attend_many.cu", changes: &[("chunk ^ (row & 7)", "chunk | (row & 7)")] },
    Fault { name: "tokens out of order", file: "attend_many.cu", changes: &[("queries + ((u64)tokens[item.token + token]", "queries + ((u64)(item.token + token)")] },
    Fault { name: "tokens out of order", file: "attend_few.cu", changes: &[("queries + ((u64)tokens[item.token + token]", "queries + ((u64)(item.token + token)")] },
    // Alignment.
    Fault { name: "misaligned load of queries", file: "attend_few.cu", changes: &[("load<16>(w, row + 32 * j + 8 * c)", "load<16>(w, row + 32 * j + 8 * c + 1)")] },
    Fault { name: "misaligned load of values", file: "attend_few.cu", changes: &[("row + 64 * WIDE + 16 * j + 2 * g)", "row + 64 * WIDE + 16 * j + 2 * g + 1)")] },
    Fault { name: "misaligned copy", file: "attend_many.cu", changes: &[("row + 8 * k);", "row + 8 * k + 1);")] },
    Fault { name: "misaligned matrix", file: "attend_many.cu", changes: &[("own + chunk_at<D>(m * 16 + (lane & 15), 2 * k + (lane >> 4))", "own + chunk_at<D>(m * 16 + (lane & 15), 2 * k + (lane >> 4)) + 1")] },
    // Arithmetic.
    Fault { name: "results are not rescaled", file: "attend_many.cu", changes: &[("out[m][i][2 * h] *= rescale; out[m][i][2 * h + 1] *= rescale;", "")] },
    Fault { name: "sums are not rescaled", file: "attend_many.cu", changes: &[("sum[m][h] *= rescale;", "")] },
    Fault { name: "sums of half of the lanes", file: "attend_many.cu", changes: &[("total += shuffle_xor(total, 2);", "")] },
    Fault { name: "peaks of half of the lanes", file: "attend_many.cu", changes: &[("peak[h] = fmaxf(peak[h], shuffle_xor(peak[h], 2));", "")] },
    Fault { name: "values not transposed", file: "attend_many.cu", changes: &[("load_matrices_transposed(b", "load_matrices(b")] },
    Fault { name: "results are not rescaled", file: "attend_few.cu", changes: &[("out[i][2 * h] *= rescale; out[i][2 * h + 1] *= rescale;", "")] },
    Fault { name: "sums are not rescaled", file: "attend_few.cu", changes: &[("sum[h] *= rescale;", "")] },
    Fault { name: "a query that sees nothing yet", file: "attend_few.cu", changes: &[("top[h] == -INFINITE ? 0.f : top[h]", "top[h]")] },
    Fault { name: "values of the wrong key", file: "attend_few.cu", changes: &[("permute(vw[2][4 * j + i / 2], vw[3][4 * j + i / 2], pick)", "permute(vw[3][4 * j + i / 2], vw[2][4 * j + i / 2], pick)")] },
    // What comes of parts.
    Fault { name: "results of the first set alone", file: "join.cu", changes: &[("for (int set = 0; set < 2; set++)\n        for (u32 i = 0; i < join.count[set]; i++) {\n          const", "for (int set = 0; set < 1; set++)\n        for (u32 i = 0; i < join.count[set]; i++) {\n          const")] },
    Fault { name: "parts of the first result", file: "join.cu", changes: &[("i * join.stride[set] + slot) * width;\n          total", "i + slot) * width;\n          total")] },
    Fault { name: "a part is the largest that is not", file: "join.cu", changes: &[("peak = fmaxf(peak, partials", "peak = fminf(peak, partials")] },
];

#[rustfmt::skip]
pub const SUMS: &[Fault] = &[
    Fault { name: "numbers of the sum before are overwritten", file: "numbers.h", changes: &[("x = warp_sum(x);\n  barrier();", "x = warp_sum(x);")] },
    Fault { name: "sums of warps that are not there yet", file: "numbers.h", changes: &[("shared[thread() / 32] = x;\n  barrier();", "shared[thread() / 32] = x;")] },
    Fault { name: "half of the lanes", file: "numbers.h", changes: &[("for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);\n  return x;\n}\nDEVICE double", "for (int mask = 8; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);\n  return x;\n}\nDEVICE double")] },
    Fault { name: "peaks are overwritten", file: "answers.cu", changes: &[("peak = warp_max(peak);\n  barrier();", "peak = warp_max(peak);")] },
    Fault { name: "peaks of warps that are not there yet", file: "answers.cu", changes: &[("shared[thread() / 32] = peak;\n  barrier();", "shared[thread() / 32] = peak;")] },
    Fault { name: "the best of warps are overwritten", file: "answers.cu", changes: &[("(Best*)bytes;\n    barrier();", "(Best*)bytes;")] },
    Fault { name: "the best of warps are not there yet", file: "answers.cu", changes: &[(".token = token; }\n    barrier();", ".token = token; }")] },
    Fault { name: "equals out of order", file: "answers.cu", changes: &[("token_a < token_b", "token_a > token_b")] },
    Fault { name: "peaks of warps that are not there yet", file: "observations.cu", changes: &[("shared[warp] = peak;\n  barrier();", "shared[warp] = peak;")] },
    Fault { name: "a row too few", file: "observations.cu", changes: &[("row < first + rows", "row < first + rows - 1")] },
    Fault { name: "the youngest row first", file: "observations.cu", changes: &[("for (int row = first; row < first + rows; row++)", "for (int row = first + rows - 1; row >= first; row--)")] },
    Fault { name: "a key beyond the prompt", file: "observations.cu", changes: &[("min(length, ", "min(length + 1, ")] },
    Fault { name: "queries are overwritten", file: "observations.cu", changes: &[("start += 8) {\n    barrier();", "start += 8) {")] },
    Fault { name: "queries that are not there yet", file: "observations.cu", changes: &[(": 0.f;\n    }\n    barrier();", ": 0.f;\n    }")] },
    Fault { name: "parts that are not there yet", file: "observations.cu", changes: &[("= sum;\n  barrier();", "= sum;")] },
    Fault { name: "a key sees the token before it", file: "observations.cu", changes: &[("key <= position", "key < position")] },
    Fault { name: "a window too wide", file: "observations.cu", changes: &[("key + sliding > position", "key + sliding >= position")] },
];
