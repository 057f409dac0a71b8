//! Kernels whose threads make one result together, against sums in f64.

use cokv_core::WindowSum;
use cokv_cuda::device::{Argument, Buffer, Device, Kind, Launch};
use cokv_cuda::plan::tables::{Best, DIRECT, Place};
use cokv_emulator::{Emulated, HostBuffer, Random};

use super::numbers::{get, normals, put, put_numbers, read};

const WIDTH: usize = 1003;

/// What is wrong with any of them.
pub fn check(device: &Emulated, seed: u64) -> Result<(), String> {
    let random = &mut Random::new(seed);
    norms(device, random)?;
    absolute_sums(device, random)?;
    finite(device, random)?;
    likeliest(device, random)?;
    judged(device, random)?;
    window_attention(device, random)?;
    window_sums(device, random)?;
    column_sums(device, random)
}

fn launch(
    device: &Emulated,
    kernel: &str,
    blocks: [usize; 2],
    threads: usize,
    shared_bytes: usize,
    arguments: &[Argument],
) -> Result<(), String> {
    device.launch(Launch { kernel, blocks, threads, shared_bytes }, arguments).map_err(|error| error.to_string())
}

fn allocate(device: &Emulated, numbers: usize) -> HostBuffer {
    device.allocate(numbers * 4).unwrap()
}

fn close(what: &str, found: impl IntoIterator<Item = f64>, expected: &[f64], tolerance: f64) -> Result<(), String> {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    let near = |at: usize| (found[at] - expected[at]).abs() <= tolerance * (1.0 + expected[at].abs());
    match (0..found.len()).find(|&at| !near(at)) {
        None => Ok(()),
        Some(at) => Err(format!("{what} {at}: {} for {}", found[at], expected[at])),
    }
}

fn f32s(device: &Emulated, buffer: &HostBuffer) -> Vec<f64> {
    read(Kind::F32, &get(device, buffer)).into_iter().map(f64::from).collect()
}

fn f64s(device: &Emulated, buffer: &HostBuffer) -> Vec<f64> {
    get(device, buffer).as_chunks().0.iter().map(|&eight| f64::from_ne_bytes(eight)).collect()
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln()
}

fn norms(device: &Emulated, random: &mut Random) -> Result<(), String> {
    // Four numbers together, and one by one.
    [(300, true), (299, false)].into_iter().try_for_each(|(length, wide)| norms_of(device, random, length, wide))
}

fn norms_of(device: &Emulated, random: &mut Random, length: usize, wide: bool) -> Result<(), String> {
    let (rows, runs, stride) = (3, 2, 700);
    let x = normals(random, Kind::F32, rows * stride);
    let weight = normals(random, Kind::F32, length);
    let [from, weights] = [&x, &weight].map(|numbers| put_numbers(device, Kind::F32, numbers));
    let to = allocate(device, rows * runs * length);
    let arguments = [
        from.address().into(),
        stride.into(),
        weights.address().into(),
        to.address().into(),
        Kind::F32.into(),
        length.into(),
        runs.into(),
        Argument::from(1e-6),
        wide.into(),
    ];
    launch(device, "rms_norm", [rows * runs, 1], 256, 8 * 4, &arguments)?;
    let mut expected = Vec::new();
    for run in 0..rows * runs {
        let of_run = &x[run / runs * stride + run % runs * length..][..length];
        let square: f64 = of_run.iter().map(|&x| f64::from(x).powi(2)).sum();
        let factor = 1.0 / (square / length as f64 + 1e-6).sqrt();
        expected.extend(of_run.iter().zip(&weight).map(|(&x, &weight)| f64::from(x) * factor * f64::from(weight)));
    }
    close("rms_norm", f32s(device, &to), &expected, 1e-5)
}

fn absolute_sums(device: &Emulated, random: &mut Random) -> Result<(), String> {
    let x = normals(random, Kind::F32, 3 * WIDTH);
    let (from, to) = (put_numbers(device, Kind::F32, &x), allocate(device, 3));
    launch(device, "absolute_sums", [3, 1], 256, 8 * 4, &[from.address().into(), WIDTH.into(), to.address().into()])?;
    let expected: Vec<f64> = x.chunks(WIDTH).map(|row| row.iter().map(|&x| f64::from(x.abs())).sum()).collect();
    close("absolute_sums", f32s(device, &to), &expected, 1e-5)
}

fn finite(device: &Emulated, random: &mut Random) -> Result<(), String> {
    let (places, width) = (4, 70);
    let mut hidden = normals(random, Kind::F16, places * width);
    let mut logits = normals(random, Kind::F32, places * WIDTH);
    hidden[width + 69] = f32::INFINITY;
    logits[2 * WIDTH + 1002] = f32::NAN;
    let [hidden, logits] =
        [(Kind::F16, hidden), (Kind::F32, logits)].map(|(kind, numbers)| put_numbers(device, kind, &numbers));
    let result = allocate(device, places);
    let arguments = [
        hidden.address().into(),
        Kind::F16.into(),
        width.into(),
        logits.address().into(),
        WIDTH.into(),
        Argument::from(result.address()),
    ];
    launch(device, "all_finite", [places, 1], 1024, 32 * 4, &arguments)?;
    let found: Vec<u32> = get(device, &result).as_chunks().0.iter().map(|&four| u32::from_ne_bytes(four)).collect();
    if found == [1, 0, 0, 1] { Ok(()) } else { Err(format!("all_finite: {found:?}")) }
}

fn likeliest(device: &Emulated, random: &mut Random) -> Result<(), String> {
    let (count, places) = (5, [2, 0]);
    // Many are equal.
    let logits: Vec<f32> = (0..3 * WIDTH).map(|_| random.below(300) as f32 / 50.0).collect();
    let [from, rows] =
        [bytemuck::cast_slice(&logits), bytemuck::cast_slice::<u32, u8>(&places)].map(|table| put(device, table));
    let best = device.allocate(places.len() * count * size_of::<Best>()).unwrap();
    let log_sums = device.allocate(places.len() * 8).unwrap();
    let arguments = [
        from.address().into(),
        WIDTH.into(),
        rows.address().into(),
        count.into(),
        best.address().into(),
        Argument::from(log_sums.address()),
    ];
    launch(device, "likeliest", [places.len(), 1], 512, 32 * 8, &arguments)?;
    let (mut expected, mut expected_sums) = (Vec::new(), Vec::new());
    for place in places {
        let row = &logits[place as usize * WIDTH..][..WIDTH];
        let mut order: Vec<usize> = (0..WIDTH).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        expected.extend(order[..count].iter().map(|&token| (row[token], token as u32)));
        expected_sums.push(log_sum_exp(row));
    }
    let found: Vec<(f32, u32)> = bytemuck::cast_slice::<u8, [u8; 8]>(&get(device, &best))
        .iter()
        .map(|&bytes| bytemuck::cast::<_, Best>(bytes))
        .map(|best| (best.logit, best.token))
        .collect();
    if found != expected {
        return Err(format!("likeliest: {found:?} for {expected:?}"));
    }
    close("likeliest", f64s(device, &log_sums), &expected_sums, 1e-6)
}

fn judged(device: &Emulated, random: &mut Random) -> Result<(), String> {
    let logits = normals(random, Kind::F32, 4 * WIDTH);
    // The sum of exponentials of one is the peak's alone.
    let logits: Vec<f32> =
        logits.iter().enumerate().map(|(at, &x)| if at == 2 * WIDTH + 700 { 30.0 } else { 3.0 * x }).collect();
    let from = put_numbers(device, Kind::F32, &logits);
    let address = |row: usize| from.address() + (row * WIDTH * 4) as u64;
    let pairs = [(0, Some(1), 17), (2, Some(3), DIRECT), (3, None, 1002)];
    let places = pairs.map(|(row, other, target)| Place {
        logits: address(row),
        other: other.map_or(0, address),
        target,
        unused: 0,
    });
    let (table, results) = (put(device, bytemuck::cast_slice(&places)), device.allocate(places.len() * 16).unwrap());
    launch(
        device,
        "judge",
        [places.len(), 1],
        1024,
        32 * 8,
        &[table.address().into(), WIDTH.into(), results.address().into()],
    )?;
    let mut expected = Vec::new();
    for (row, other, target) in pairs {
        let logits_of = |row: usize| &logits[row * WIDTH..][..WIDTH];
        let q: Vec<f64> = logits_of(row).iter().map(|&x| f64::from(x) - log_sum_exp(logits_of(row))).collect();
        expected.push(if target == DIRECT { 0.0 } else { q[target as usize] });
        expected.push(other.map_or(0.0, |other| {
            let sum = log_sum_exp(logits_of(other));
            logits_of(other).iter().zip(q).map(|(&p, q)| (f64::from(p) - sum).exp() * (f64::from(p) - sum - q)).sum()
        }));
    }
    close("judge", f64s(device, &results), &expected, 1e-5)
}

/// Heads whose attention is observed.
struct Observed {
    keys: Vec<f32>,
    queries: Vec<f32>,
    buffers: Vec<HostBuffer>,
    /// Of the buffers' addresses.
    table: HostBuffer,
}

const HEAD_DIM: usize = 40;
const GROUP: usize = 3;
const KV_HEADS: usize = 2;
const QUERY_HEADS: usize = GROUP * KV_HEADS;

impl Observed {
    fn new(device: &Emulated, random: &mut Random, tokens: usize, keys: usize) -> Self {
        let queries = normals(random, Kind::F32, tokens * QUERY_HEADS * HEAD_DIM);
        let numbers = normals(random, Kind::F16, KV_HEADS * keys * HEAD_DIM);
        let buffers: Vec<HostBuffer> =
            numbers.chunks(keys * HEAD_DIM).map(|of_head| put_numbers(device, Kind::F16, of_head)).collect();
        let addresses: Vec<u64> = buffers.iter().map(Buffer::address).collect();
        Self { keys: numbers, queries, buffers, table: put(device, bytemuck::cast_slice(&addresses)) }
    }

    /// Of a query to the keys of its head, in base 2.
    fn scores(&self, token: usize, head: usize, keys: usize) -> Vec<f64> {
        let query = &self.queries[(token * QUERY_HEADS + head) * HEAD_DIM..][..HEAD_DIM];
        let of_head = self.keys.len() / KV_HEADS;
        let score = |key: &[f32]| {
            key.iter().zip(query).map(|(&k, &q)| f64::from(k) * f64::from(q)).sum::<f64>() * f64::from(scale())
        };
        self.keys[head / GROUP * of_head..][..keys * HEAD_DIM].chunks(HEAD_DIM).map(score).collect()
    }
}

fn scale() -> f32 {
    std::f32::consts::LOG2_E / (HEAD_DIM as f32).sqrt()
}

fn window_attention(device: &Emulated, random: &mut Random) -> Result<(), String> {
    let (window, length) = (5, 77);
    let observed = Observed::new(device, random, window, length);
    let queries = put_numbers(device, Kind::F32, &observed.queries);
    for sliding in [0, 20] {
        let to = allocate(device, QUERY_HEADS * window * length);
        let mut arguments: Vec<Argument> =
            vec![observed.table.address().into(), queries.address().into(), to.address().into()];
        arguments.extend([window, length, sliding, GROUP, QUERY_HEADS, HEAD_DIM].map(Argument::from));
        arguments.push(scale().into());
        launch(device, "window_attention_f16", [QUERY_HEADS, window], 256, 8 * 4, &arguments)?;
        let mut expected = Vec::new();
        for (head, token) in (0..QUERY_HEADS).flat_map(|head| (0..window).map(move |token| (head, token))) {
            let end = length - window + token + 1;
            let begin = if sliding == 0 { 0 } else { end.saturating_sub(sliding) };
            let scores = observed.scores(token, head, end);
            let sum: f64 = scores[begin..].iter().map(|score| score.exp2()).sum();
            expected.extend(
                (0..length).map(|key| if (begin..end).contains(&key) { scores[key].exp2() / sum } else { 0.0 }),
            );
        }
        close("window_attention", f32s(device, &to), &expected, 1e-5)?;
    }
    Ok(())
}

/// To the bit: methods score the same as where rows come to the host.
fn window_sums(device: &Emulated, random: &mut Random) -> Result<(), String> {
    let (window, length) = (9, 1100);
    let attention = normals(random, Kind::F32, QUERY_HEADS * window * length);
    let from = put_numbers(device, Kind::F32, &attention);
    for sum in [(9, 0), (4, 3), (1, 8), (1, 0)].map(|(rows, tail)| WindowSum { rows, tail }) {
        let to = allocate(device, QUERY_HEADS * length);
        let queries = sum.queries(length);
        let mut arguments: Vec<Argument> = vec![from.address().into(), to.address().into()];
        arguments.extend([window, length, queries.start + window - length, queries.len()].map(Argument::from));
        launch(device, "window_sums", [QUERY_HEADS, length.div_ceil(1024)], 256, 0, &arguments)?;
        let expected: Vec<f64> =
            attention.chunks(window * length).flat_map(|rows| sum.of(rows, length)).map(f64::from).collect();
        close(&format!("window_sums, {sum:?},"), f32s(device, &to), &expected, 0.0)?;
    }
    Ok(())
}

fn column_sums(device: &Emulated, random: &mut Random) -> Result<(), String> {
    let (tokens, seen, prompt) = (21, 50, 100);
    let observed = Observed::new(device, random, tokens, seen + tokens);
    let queries = put_numbers(device, Kind::F32, &observed.queries);
    for sliding in [0, 30] {
        let visible = |token: usize| {
            let end = seen + token + 1;
            (if sliding == 0 { 0 } else { end.saturating_sub(sliding) })..end
        };
        let mut expected = vec![1.0; QUERY_HEADS * prompt];
        let mut log_sums = Vec::new();
        for (token, head) in (0..tokens).flat_map(|token| (0..QUERY_HEADS).map(move |head| (token, head))) {
            let scores = observed.scores(token, head, seen + tokens);
            let sum: f64 = scores[visible(token)].iter().map(|score| score.exp2()).sum();
            log_sums.push(sum.log2() as f32);
            for key in visible(token) {
                expected[head * prompt + key] += scores[key].exp2() / sum;
            }
        }
        let log_sums = put_numbers(device, Kind::F32, &log_sums);
        let sums = put_numbers(device, Kind::F32, &vec![1.0; QUERY_HEADS * prompt]);
        let mut arguments: Vec<Argument> =
            [&observed.table, &queries, &log_sums, &sums].map(|buffer| buffer.address().into()).to_vec();
        arguments.extend([tokens, seen, prompt, sliding, GROUP, QUERY_HEADS, HEAD_DIM].map(Argument::from));
        arguments.push(scale().into());
        let shared_bytes = (40 * (HEAD_DIM + 1) + 8 * 32) * 4;
        launch(device, "column_sums_f16", [(seen + tokens).div_ceil(32), QUERY_HEADS], 256, shared_bytes, &arguments)?;
        close("column_sums", f32s(device, &sums), &expected, 1e-5)?;
    }
    Ok(())
}
