//! Products of matrices against sums in f64.

mod checks;

use checks::numbers::{get, normals, put_numbers, read};
use cokv_cuda::device::{Buffer, Device, Kind, Operand, Product};
use cokv_emulator::{Emulated, Random};

#[test]
fn products_of_all_kinds_and_strides() {
    let Some(device) = Emulated::new(1) else {
        return cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
    };
    let mut random = Random::new(7);
    for round in 0..200 {
        let kind = [Kind::F32, Kind::F16, Kind::Bf16][round % 3];
        let accumulate = round % 2 == 0;
        let [rows, columns, inner] = [(); 3].map(|()| 1 + random.below(40));
        let [x_stride, weight_stride, y_stride] = [inner, inner, columns].map(|width| width + 3 * random.below(2));
        let x = normals(&mut random, kind, rows * x_stride);
        let weight = normals(&mut random, kind, columns * weight_stride);
        let before = normals(&mut random, Kind::F32, rows * y_stride);
        let [x_buffer, weight_buffer] = [&x, &weight].map(|numbers| put_numbers(&device, kind, numbers));
        let y = put_numbers(&device, Kind::F32, &before);
        let product = Product {
            x: Operand { address: x_buffer.address(), stride: x_stride, kind },
            weight: Operand { address: weight_buffer.address(), stride: weight_stride, kind },
            y: y.address(),
            y_stride,
            rows,
            columns,
            inner,
            accumulate,
        };
        device.product(&product).unwrap();
        for (at, (found, before)) in read(Kind::F32, &get(&device, &y)).into_iter().zip(before).enumerate() {
            let (row, column) = (at / y_stride, at % y_stride);
            if column >= columns {
                assert_eq!(found, before, "between rows");
                continue;
            }
            let pairs = x[row * x_stride..].iter().zip(&weight[column * weight_stride..]).take(inner);
            let sum: f64 = pairs.map(|(&x, &weight)| f64::from(x) * f64::from(weight)).sum();
            let expected = sum + if accumulate { f64::from(before) } else { 0.0 };
            assert!((f64::from(found) - expected).abs() < 1e-4, "{found} for {expected} in {product:?}");
        }
    }
}
