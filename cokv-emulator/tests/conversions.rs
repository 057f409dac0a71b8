//! The emulator's numbers of 16 bits are those of the `half` crate.

mod checks;

use checks::numbers::{get, put, read};
use cokv_cuda::device::{Argument, Buffer, Device, Kind, Launch};
use cokv_emulator::{Emulated, Random};
use half::{bf16, f16};

/// `convert` of a row of bytes.
fn convert(device: &Emulated, bytes: &[u8], from_kind: Kind, kind: Kind) -> Vec<u8> {
    let width = bytes.len() / from_kind.bytes();
    let (from, to) = (put(device, bytes), device.allocate(width * kind.bytes()).unwrap());
    let launch = Launch { kernel: "convert", blocks: [1, width.div_ceil(1024)], threads: 256, shared_bytes: 0 };
    let arguments = [
        Argument::from(from.address()),
        from_kind.into(),
        width.into(),
        to.address().into(),
        kind.into(),
        width.into(),
    ];
    device.launch(launch, &arguments).unwrap();
    get(device, &to)
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn all_numbers_are_widened_exactly() {
    let Some(device) = Emulated::new(1) else {
        return cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
    };
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for kind in [Kind::F16, Kind::Bf16] {
        let found = read(Kind::F32, &convert(&device, &bytes, kind, Kind::F32));
        let wrong = read(kind, &bytes).into_iter().zip(found).position(|(expected, found)| !same(found, expected));
        assert_eq!(wrong, None, "{kind:?}");
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest() {
    let Some(device) = Emulated::new(1) else {
        return cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
    };
    let mut random = Random::new(1);
    let any = (0..200_000).map(|_| f32::from_bits(random.number() as u32)).collect::<Vec<_>>();
    // Where f16 is subnormal, where it ends, and half way between two numbers.
    let between = |bits: u16| {
        let [low, high] = [bits, bits + 1].map(|bits| f16::from_bits(bits).to_f32());
        let middle = (low + high) / 2.0;
        [middle, middle.next_up(), middle.next_down(), -middle]
    };
    let ends = [65504.0, 65519.99, 65520.0, 65535.0, 65536.0, f32::MAX, f32::MIN_POSITIVE, 0.0, -0.0];
    let numbers: Vec<f32> = any.into_iter().chain((0..0x7bff).flat_map(between)).chain(ends).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let round = |kind, x| if kind == Kind::F16 { f16::from_f32(x).to_f32() } else { bf16::from_f32(x).to_f32() };
    for kind in [Kind::F16, Kind::Bf16] {
        let found = read(kind, &convert(&device, &bytes, Kind::F32, kind));
        let wrong = numbers.iter().zip(found).find(|&(&x, found)| !same(found, round(kind, x)));
        assert_eq!(wrong, None, "{kind:?}");
    }
}
