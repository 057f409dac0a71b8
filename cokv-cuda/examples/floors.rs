//! How far a card's kernels are from what it can do: `cargo run --release -p cokv-cuda --example floors`.
//!
//! Copies and large products are the ceilings; attention and the products of Llama-3-8B's shape stand beside them.

use std::time::Instant;

use cokv_cuda::device::{Argument, Buffer, Device, Kind, Launch, Operand, Product};
use cokv_cuda::gpu::Gpu;
use cokv_cuda::plan::tables::Item;
use cokv_cuda::plan::{Head, Kernel, Plan, Shape};

type Error = Box<dyn std::error::Error>;

const HEAD_DIM: usize = 128;
const KV_HEADS: usize = 8;
const GROUP: usize = 4;

fn main() -> Result<(), Error> {
    let started = Instant::now();
    let cache = std::env::temp_dir().join("cokv-floors");
    let gpu = Gpu::open(0, HEAD_DIM, Some(&cache))?;
    println!("{}: open and compiled in {:.2} s", gpu.description(), started.elapsed().as_secs_f64());
    let started = Instant::now();
    drop(Gpu::open(0, HEAD_DIM, Some(&cache))?);
    println!("again, from the cache: {:.2} s", started.elapsed().as_secs_f64());

    let big = gpu.allocate(8 << 30)?;
    draw(&gpu, big.address(), (8 << 30) / 2)?;
    let seconds = time(&gpu, 5, || gpu.copy(big.address(), big.address() + (4 << 30), 4 << 30))?;
    let bandwidth = 2.0 * (4u64 << 30) as f64 / seconds;
    println!("copy: {:.2} TB/s", bandwidth / 1e12);

    let y = gpu.allocate(4096 * 28672 * 4 + (1 << 20))?;
    let product = |rows: usize, columns: usize, inner: usize, y_address: u64| {
        gpu.product(&Product {
            x: Operand { address: big.address(), stride: inner, kind: Kind::Bf16 },
            weight: Operand { address: big.address() + (1 << 30), stride: inner, kind: Kind::Bf16 },
            y: y_address,
            y_stride: columns,
            rows,
            columns,
            inner,
            accumulate: false,
        })
    };
    let seconds = time(&gpu, 10, || product(8192, 8192, 8192, y.address()))?;
    let peak = 2.0 * 8192f64.powi(3) / seconds;
    println!("product 8192^3, bf16 to f32: {:.0} TFLOP/s", peak / 1e12);
    for (name, columns, inner) in
        [("qkv", 6144, 4096), ("out", 4096, 4096), ("gate, up", 28672, 4096), ("down", 4096, 14336)]
    {
        for rows in [1, 8, 16, 32, 64, 256, 1024, 4096] {
            let seconds = time(&gpu, 20, || product(rows, columns, inner, y.address()))?;
            let flops = 2.0 * (rows * columns * inner) as f64 / seconds;
            let bytes = (2 * columns * inner + 2 * rows * inner + 4 * rows * columns) as f64 / seconds;
            println!(
                "{name:9} {rows:5} rows: {:8.1} us, {:5.0} TFLOP/s, {:5.2} of copy",
                seconds * 1e6,
                flops / 1e12,
                bytes / bandwidth
            );
        }
    }
    let seconds = time(&gpu, 20, || product(64, 128_256, 4096, y.address()))?;
    println!("head         64 rows: {:8.1} us", seconds * 1e6);

    let seconds = time(&gpu, 1, || {
        for _ in 0..1000 {
            let arguments = [
                big.address().into(),
                Kind::Bf16.into(),
                32usize.into(),
                y.address().into(),
                Kind::F32.into(),
                32usize.into(),
            ];
            gpu.launch(Launch { kernel: "convert", blocks: [1, 1], threads: 256, shared_bytes: 0 }, &arguments)?;
        }
        Ok(())
    })?;
    println!("a launch: {:.2} us", seconds * 1e3);
    for bytes in [1000usize, 1 << 20, 100 << 20] {
        let seconds = time(&gpu, 1, || (0..1000).try_for_each(|_| gpu.allocate(bytes).map(drop)))?;
        println!("allocate and free {bytes} bytes: {:.2} us", seconds * 1e3);
    }
    let table = vec![1u8; 1 << 20];
    for bytes in [1000usize, 60_000, 1 << 20] {
        let seconds = time(&gpu, 1, || (0..100).try_for_each(|_| gpu.upload(&table[..bytes], y.address())))?;
        println!("upload of {bytes} bytes: {:.2} us", seconds * 1e4);
    }

    for (tokens, before) in [(4096, 0), (4096, 4096), (4096, 28672)] {
        attention(&gpu, &big, &[tokens], &[before], bandwidth, peak)?;
    }
    for rows in [1, 8, 32] {
        attention(&gpu, &big, &vec![1; rows], &vec![8191; rows], bandwidth, peak)?;
        attention(&gpu, &big, &vec![1; rows], &vec![127; rows], bandwidth, peak)?;
    }
    // One head of 8,000 keys beside 255 of 8.
    let mut mixed = vec![7; 32];
    mixed[0] = 7999;
    attention(&gpu, &big, &[1; 32], &mixed, bandwidth, peak)
}

/// One layer of rows with caches of their own.
fn attention(
    gpu: &Gpu,
    memory: &cokv_cuda::gpu::GpuBuffer,
    rows: &[usize],
    before: &[u32],
    bandwidth: f64,
    peak: f64,
) -> Result<(), Error> {
    let shape = Shape { group: GROUP, kv_heads: KV_HEADS, enough_items: gpu.blocks_at_once(), fast: true };
    let mut next = memory.address();
    let mut keys_read = 0;
    let mut heads = Vec::new();
    for (tokens, &before) in rows.iter().zip(before) {
        for _ in 0..KV_HEADS {
            let keys = before as usize + tokens;
            let bytes = (keys * HEAD_DIM * 2) as u64;
            heads.push(Head {
                keys: [next; 3],
                values: [next + bytes; 3],
                until: [0, 0],
                keys_before: before,
                hidden: None,
            });
            next += 2 * bytes;
            keys_read += keys;
        }
    }
    let mut plan = Plan::new(rows.to_vec());
    plan.layer(&shape, &heads);
    let total: usize = rows.iter().sum();
    let upload = |bytes: &[u8]| -> Result<_, cokv_cuda::CudaError> {
        let buffer = gpu.allocate(bytes.len().max(16))?;
        gpu.upload(bytes, buffer.address())?;
        Ok(buffer)
    };
    let (items, joins) = (upload(bytemuck::cast_slice(&plan.items))?, upload(bytemuck::cast_slice(&plan.joins))?);
    let tokens = upload(bytemuck::cast_slice(&plan.tokens))?;
    let partials = gpu.allocate(plan.partials * (HEAD_DIM + 2) * 4)?;
    let width = KV_HEADS * GROUP * HEAD_DIM;
    let (queries, output) = (gpu.allocate(total * width * 2)?, gpu.allocate(total * width * 2)?);
    draw(gpu, queries.address(), total * width)?;
    let log_sums = gpu.allocate(total * KV_HEADS * GROUP * 4)?;
    let scale = std::f32::consts::LOG2_E / (HEAD_DIM as f32).sqrt();
    let results: [Argument; 6] = [
        partials.address().into(),
        output.address().into(),
        log_sums.address().into(),
        Kind::Bf16.into(),
        GROUP.into(),
        (KV_HEADS * GROUP).into(),
    ];
    let seconds = time(gpu, 10, || {
        for (kernel, range) in Kernel::ALL.into_iter().zip(&plan.of_kernels).filter(|(_, range)| !range.is_empty()) {
            let (name, shared_bytes) = (kernel.name(Kind::Bf16, HEAD_DIM), kernel.shared_bytes(HEAD_DIM));
            let first = items.address() + (range.start * size_of::<Item>()) as u64;
            let mut arguments: Vec<Argument> = vec![first.into(), tokens.address().into(), queries.address().into()];
            arguments.extend(results);
            arguments.push(scale.into());
            gpu.launch(Launch { kernel: &name, blocks: [range.len(), 1], threads: 128, shared_bytes }, &arguments)?;
        }
        if plan.joins.is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<Argument> = vec![joins.address().into(), tokens.address().into()];
        arguments.extend(results);
        arguments.push(HEAD_DIM.into());
        gpu.launch(Launch { kernel: "join", blocks: [plan.joins.len(), 1], threads: 128, shared_bytes: 0 }, &arguments)
    })?;
    let pairs: f64 = rows
        .iter()
        .zip(before)
        .map(|(&tokens, &before)| tokens as f64 * (before as f64 + (tokens as f64 + 1.0) / 2.0))
        .sum();
    let flops = 4.0 * HEAD_DIM as f64 * (KV_HEADS * GROUP) as f64 * pairs / seconds;
    let bytes = (keys_read * HEAD_DIM * 4) as f64 / seconds;
    let (least, most) = (before.iter().min().unwrap_or(&0), before.iter().max().unwrap_or(&0));
    println!(
        "attention of {} rows of {} after {least} to {most}: {} items, {} joins, {:8.1} us, {:5.0} TFLOP/s ({:.2} of peak), {:.2} of copy",
        rows.len(),
        rows[0],
        plan.items.len(),
        plan.joins.len(),
        seconds * 1e6,
        flops / 1e12,
        flops / peak,
        bytes / bandwidth
    );
    Ok(())
}

fn draw(gpu: &Gpu, to: u64, count: usize) -> Result<(), cokv_cuda::CudaError> {
    let arguments = [to.into(), Kind::Bf16.into(), (count as u64).into(), 5u64.into(), 1f32.into()];
    gpu.launch(Launch { kernel: "draw", blocks: [count.div_ceil(1024), 1], threads: 256, shared_bytes: 0 }, &arguments)
}

/// Seconds of one call, after one that does not count.
fn time(
    gpu: &Gpu,
    times: usize,
    call: impl Fn() -> Result<(), cokv_cuda::CudaError>,
) -> Result<f64, cokv_cuda::CudaError> {
    call()?;
    gpu.synchronise()?;
    let started = Instant::now();
    for _ in 0..times {
        call()?;
    }
    gpu.synchronise()?;
    Ok(started.elapsed().as_secs_f64() / times as f64)
}
