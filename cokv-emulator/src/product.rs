//! Products of matrices, on widened numbers.

use cokv_cuda::device::{Kind, Operand, Product};
use half::{bf16, f16};

use crate::memory::Memory;

/// `y = x wᵀ (+ y)`
pub fn multiply(memory: &Memory, product: &Product) {
    let &Product { rows, columns, inner, y_stride, .. } = product;
    if rows == 0 || columns == 0 {
        return;
    }
    let x = widened(memory, &product.x, rows, inner);
    let weight = widened(memory, &product.weight, columns, inner);
    let y: *mut f32 = memory.at(product.y, ((rows - 1) * y_stride + columns) * 4, "a product's result").cast();
    // SAFETY: all three have these sizes, and whoever asks for a product uses its result only after it.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            y,
            1,
            y_stride as isize,
            product.accumulate,
            x.as_ptr(),
            1,
            inner as isize,
            weight.as_ptr(),
            inner as isize,
            1,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `[rows, inner]`
fn widened(memory: &Memory, operand: &Operand, rows: usize, inner: usize) -> Vec<f32> {
    let numbers = (rows - 1) * operand.stride + inner;
    let from = memory.at(operand.address, numbers * operand.kind.bytes(), "an operand of a product");
    assert!(from.addr().is_multiple_of(operand.kind.bytes()), "a misaligned operand of a product");
    // SAFETY: all of it is within a buffer, and nothing writes it meanwhile.
    unsafe {
        match operand.kind {
            Kind::F32 => rows_of(from.cast::<f32>(), numbers, operand.stride, inner, |x| x),
            Kind::F16 => rows_of(from.cast::<f16>(), numbers, operand.stride, inner, f16::to_f32),
            Kind::Bf16 => rows_of(from.cast::<bf16>(), numbers, operand.stride, inner, bf16::to_f32),
        }
    }
}

unsafe fn rows_of<T: Copy>(
    from: *const T,
    numbers: usize,
    stride: usize,
    inner: usize,
    widen: fn(T) -> f32,
) -> Vec<f32> {
    // SAFETY: the caller's.
    let numbers = unsafe { std::slice::from_raw_parts(from, numbers) };
    numbers.chunks(stride).flat_map(|row| row[..inner].iter().map(move |&x| widen(x))).collect()
}
