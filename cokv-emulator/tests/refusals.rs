//! What a GPU would not do, or would do to somebody else's memory, is refused.

mod checks;

use std::panic::{AssertUnwindSafe, catch_unwind};

use checks::numbers::put_numbers;
use cokv_cuda::device::{Argument, Buffer, Device, Kind, Launch};
use cokv_emulator::Emulated;

fn device() -> Option<Emulated> {
    let device = Emulated::new(1);
    if device.is_none() {
        cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
    }
    device
}

#[test]
fn launches_are_checked() {
    let Some(device) = device() else { return };
    let [from, to] = [(); 2].map(|()| put_numbers(&device, Kind::F32, &[1.0; 64]));
    let [x, y] = [&from, &to].map(|buffer| Argument::from(buffer.address()));
    let sums = |kernel, blocks, threads, shared_bytes, arguments: &[Argument]| {
        let launch = Launch { kernel, blocks, threads, shared_bytes };
        device.launch(launch, arguments).map_err(|error| error.to_string())
    };
    assert_eq!(sums("absolute_sums", [2, 1], 64, 32, &[x, 32usize.into(), y]), Ok(()));
    let refused = |result: Result<(), String>, why: &str| {
        let error = result.expect_err(why);
        assert!(error.contains(why), "{error:?} says nothing of {why:?}");
    };
    refused(sums("absolute_sum", [2, 1], 64, 32, &[x, 32usize.into(), y]), "no kernel of this name");
    refused(
        sums("absolute_sums", [2, 1], 64, 32, &[x, y, 32usize.into()]),
        "arguments are (aai), and parameters (aia)",
    );
    refused(sums("absolute_sums", [2, 1], 48, 32, &[x, 32usize.into(), y]), "48 threads");
    refused(sums("absolute_sums", [2, 1], 512, 32, &[x, 32usize.into(), y]), "512 threads");
    refused(sums("absolute_sums", [0, 1], 64, 32, &[x, 32usize.into(), y]), "0 by 1 blocks");
    refused(sums("absolute_sums", [2, 1], 64, 1 << 20, &[x, 32usize.into(), y]), "bytes of shared memory");
    refused(sums("absolute_sums", [2, 1], 64, 4, &[x, 32usize.into(), y]), "written 0 bytes past its end");
}

#[test]
fn writes_past_a_buffer_are_found() {
    let Some(device) = device() else { return };
    let (from, to) = (put_numbers(&device, Kind::F32, &[1.0; 64]), device.allocate(63 * 4).unwrap());
    let arguments = [
        Argument::from(from.address()),
        0usize.into(),
        64usize.into(),
        to.address().into(),
        0usize.into(),
        64usize.into(),
    ];
    let error = device
        .launch(Launch { kernel: "convert", blocks: [1, 1], threads: 64, shared_bytes: 0 }, &arguments)
        .unwrap_err();
    assert!(error.to_string().contains("written 0 bytes past its end"), "{error}");
    catch_unwind(AssertUnwindSafe(|| drop(to))).expect_err("a damaged buffer was given back");
}

#[test]
fn copies_stay_within_buffers() {
    let Some(device) = device() else { return };
    let buffer = device.allocate(100).unwrap();
    let outside = |copy: &dyn Fn() -> cokv_cuda::Result<()>| catch_unwind(AssertUnwindSafe(copy)).is_err();
    assert!(!outside(&|| device.upload(&[0; 50], buffer.address() + 50)));
    assert!(outside(&|| device.upload(&[0; 51], buffer.address() + 50)));
    assert!(outside(&|| device.download(buffer.address() - 1, &mut [0; 2])));
    assert!(outside(&|| device.clear(buffer.address(), 101)));
    assert!(outside(&|| device.copy(buffer.address(), buffer.address() + 60, 60)));
    let address = buffer.address();
    drop(buffer);
    assert!(outside(&|| device.clear(address, 1)), "memory that was given back");
}
