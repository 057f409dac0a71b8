//! Faults of kinds that are made.

/// Pieces of a kernel that are replaced.
pub struct Fault {
    pub name: &'static str,
    pub file: &'static str,
    /// A piece, which is there once, and what comes instead.
    pub changes: [Change; 2],
}

type Change = (&'static str, &'static str);
const NOTHING_ELSE: Change = ("", "");

const fn few(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "attend_few.cu", changes: [(text, instead), NOTHING_ELSE] }
}

const fn many(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "attend_many.cu", changes: [(text, instead), NOTHING_ELSE] }
}

const fn plain(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "attend_plain.cu", changes: [(text, instead), NOTHING_ELSE] }
}

const fn join(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "join.cu", changes: [(text, instead), NOTHING_ELSE] }
}

const fn tables(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "tables.h", changes: [(text, instead), NOTHING_ELSE] }
}

const fn numbers(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "numbers.h", changes: [(text, instead), NOTHING_ELSE] }
}

const fn answers(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "answers.cu", changes: [(text, instead), NOTHING_ELSE] }
}

const fn observations(name: &'static str, text: &'static str, instead: &'static str) -> Fault {
    Fault { name, file: "observations.cu", changes: [(text, instead), NOTHING_ELSE] }
}

const KEYS_ARE_THERE: &str = "copy_wait<1>();\n    barrier();\n    if (more) fetch<D>(keys";
const VALUES_ARE_THERE: &str = "copy_wait<1>();\n    barrier();\n    if (more) fetch<D>(values";

#[rustfmt::skip]
pub const FAULTS: &[Fault] = &[
    // Copies and barriers.
    many("no wait for keys", KEYS_ARE_THERE, "barrier();\n    if (more) fetch<D>(keys"),
    many("no wait for values", VALUES_ARE_THERE, "barrier();\n    if (more) fetch<D>(values"),
    many("wait for keys, a group too few", KEYS_ARE_THERE, "copy_wait<2>();\n    barrier();\n    if (more) fetch<D>(keys"),
    many("wait for values, a group too few", VALUES_ARE_THERE, "copy_wait<2>();\n    barrier();\n    if (more) fetch<D>(values"),
    many("no barrier before keys", KEYS_ARE_THERE, "copy_wait<1>();\n    if (more) fetch<D>(keys"),
    many("no barrier before values", VALUES_ARE_THERE, "copy_wait<1>();\n    if (more) fetch<D>(values"),
    many("a group that is not committed", "fetch<D>(values, item.values, item.until, begin, end); copy_commit();", "fetch<D>(values, item.values, item.until, begin, end);"),
    many("one buffer for all tiles", "buffer ^= 1", "buffer ^= 0"),
    Fault {
        name: "one buffer for values",
        file: "attend_many.cu",
        changes: [("value_tile = values + buffer * TILE * WIDTH", "value_tile = values"), ("fetch<D>(values + (buffer ^ 1) * TILE * WIDTH", "fetch<D>(values")],
    },
    many("barrier in divergent code", "const bool masked =", "if (warp == 0) barrier();\n    const bool masked ="),
    few("no barrier before the warps' results are joined", "  barrier();\n", ""),
    few("barrier in divergent code", "float s[2][4];", "barrier();\n    float s[2][4];"),
    few("any_lane in divergent code", "if (any_lane(peak[0] > top[0] || peak[1] > top[1]))", "if (peak[0] > top[0] && any_lane(true))"),
    plain("no barrier before the warps' results are joined", "  barrier();\n", ""),
    // Which keys are seen.
    many("mask off by one at what a token sees", "key >= visible[m][i >> 1]", "key > visible[m][i >> 1]"),
    many("mask off by one at the end", "key >= end ||", "key > end ||"),
    many("tiles off by one that need no mask", "start + TILE > item.visible ||", "start + TILE > item.visible + 1 ||"),
    many("tiles off by one at the end that need no mask", "|| start + TILE > end;", "|| start + TILE > end + 1;"),
    many("keys beyond the end are read", "min(start + row, end - 1)", "start + row"),
    few("mask off by one at what a token sees", "key < visible[i >> 1]", "key <= visible[i >> 1]"),
    few("mask off by one at the end", "key < item.end &&", "key <= item.end &&"),
    few("keys beyond the end are read", "min(start + g + 8 * t, item.end - 1)", "start + g + 8 * t"),
    few("values beyond the end are read", "min(start + 2 * c + (r & 1) + 8 * (r >> 1), item.end - 1)", "start + 2 * c + (r & 1) + 8 * (r >> 1)"),
    few("the last key is not read", "item.end - 1);\n      const u16* row = (const u16*)row_of(item.keys", "item.end - 2);\n      const u16* row = (const u16*)row_of(item.keys"),
    few("all tokens see the same", "item.visible + token * item.step", "item.visible"),
    plain("hidden keys are seen", "max(item.begin, hidden[item.hidden + token])", "item.begin"),
    // Where they lie.
    tables("first part too long", "key < until[0]", "key <= until[0]"),
    tables("second part too long", "key < until[1]", "key <= until[1]"),
    many("first part too long by a key", "start + TILE <= until[0],", "start + TILE <= until[0] + 1,"),
    many("second part begins a key too early", "second = start >= until[0]", "second = start + 1 >= until[0]"),
    many("second part too long by a key", "start + TILE <= until[1],", "start + TILE <= until[1] + 1,"),
    many("third part begins a key too early", "own = start >= until[1]", "own = start + 1 >= until[1]"),
    many("swizzle forgotten where tiles are whole", "copy_async(to + chunk_at<D>(row, chunk), from + row * D", "copy_async(to + row * row_width<D>() + chunk * 8, from + row * D"),
    many("two chunks in one place", "chunk ^ (row & 7)", "chunk | (row & 7)"),
    many("tokens out of order", "queries + ((u64)tokens[item.token + token]", "queries + ((u64)(item.token + token)"),
    few("tokens out of order", "queries + ((u64)tokens[item.token + token]", "queries + ((u64)(item.token + token)"),
    // Alignment.
    few("misaligned load of queries", "load<16>(w, row + 32 * j + 8 * c)", "load<16>(w, row + 32 * j + 8 * c + 1)"),
    few("misaligned load of values", "row + 64 * WIDE + 16 * j + 2 * g)", "row + 64 * WIDE + 16 * j + 2 * g + 1)"),
    many("misaligned copy", "row + 8 * k);", "row + 8 * k + 1);"),
    many("misaligned matrix", "own + chunk_at<D>(m * 16 + (lane & 15), 2 * k + (lane >> 4))", "own + chunk_at<D>(m * 16 + (lane & 15), 2 * k + (lane >> 4)) + 1"),
    // Arithmetic.
    many("results are not rescaled", "out[m][i][2 * h] *= rescale; out[m][i][2 * h + 1] *= rescale;", ""),
    many("sums are not rescaled", "sum[m][h] * rescale + more_sum", "sum[m][h] + more_sum"),
    many("sums of half of the lanes", "total += shuffle_xor(total, 2);", ""),
    many("peaks of half of the lanes", "peak[h] = fmaxf(peak[h], shuffle_xor(peak[h], 2));", ""),
    many("values not transposed", "load_matrices_transposed(b", "load_matrices(b"),
    few("results are not rescaled", "out[i][2 * h] *= rescale; out[i][2 * h + 1] *= rescale;", ""),
    few("sums are not rescaled", "sum[h] *= rescale;", ""),
    few("a query that sees nothing yet", "top[h] == -INFINITE ? 0.f : top[h]", "top[h]"),
    few("values of the wrong key", "permute(vw[2][4 * j + i / 2], vw[3][4 * j + i / 2], pick)", "permute(vw[3][4 * j + i / 2], vw[2][4 * j + i / 2], pick)"),
    // Sums of a block.
    numbers("numbers of the sum before are overwritten", "x = warp_sum(x);\n  barrier();", "x = warp_sum(x);"),
    numbers("sums of warps that are not there yet", "shared[thread() / 32] = x;\n  barrier();", "shared[thread() / 32] = x;"),
    numbers("half of the lanes", "for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);\n  return x;\n}\nDEVICE double", "for (int mask = 8; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);\n  return x;\n}\nDEVICE double"),
    answers("peaks are overwritten", "peak = warp_max(peak);\n  barrier();", "peak = warp_max(peak);"),
    answers("peaks of warps that are not there yet", "shared[thread() / 32] = peak;\n  barrier();", "shared[thread() / 32] = peak;"),
    answers("the best of warps are overwritten", "(Best*)bytes;\n    barrier();", "(Best*)bytes;"),
    answers("the best of warps are not there yet", ".token = token; }\n    barrier();", ".token = token; }"),
    answers("equals out of order", "token_a < token_b", "token_a > token_b"),
    observations("peaks of warps that are not there yet", "shared[warp] = peak;\n  barrier();", "shared[warp] = peak;"),
    observations("queries are overwritten", "start += 8) {\n    barrier();", "start += 8) {"),
    observations("queries that are not there yet", ": 0.f;\n    }\n    barrier();", ": 0.f;\n    }"),
    observations("parts that are not there yet", "= sum;\n  barrier();", "= sum;"),
    observations("a key sees the token before it", "key <= position", "key < position"),
    observations("a window too wide", "key + sliding > position", "key + sliding >= position"),
    // What comes of parts.
    join("results of the first set alone", "for (int set = 0; set < 2; set++)\n        for (u32 i = 0; i < join.count[set]; i++) {\n          const", "for (int set = 0; set < 1; set++)\n        for (u32 i = 0; i < join.count[set]; i++) {\n          const"),
    join("parts of the first result", "i * join.stride[set] + slot) * width;
          total", "i + slot) * width;
          total"),
    join("a part is the largest that is not", "peak = fmaxf(peak, partials", "peak = fminf(peak, partials"),
];
