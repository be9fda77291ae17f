//! A criterion on a CUDA device from Rust: views of device memory, a stream, and state in place.

use std::ffi::c_void;

use ols::{Batch, Criterion, CudaStream, DType, ErrorKind, Options, TensorRef};

use crate::standin::{DEVICE, DeviceMemory, Standin};
use crate::support::life::plain_batch;

/// A training run on the device ends like one on the CPU.
#[test]
fn cuda_from_rust() {
    let standin = Standin::new();
    let (n, classes) = (40, 6);
    let options = Options::new(classes).alpha(0.25);
    let (logits, targets) = plain_batch(n, classes, 5);
    let mut on_cpu = Criterion::new(&options).unwrap();
    let mut gradient = vec![0f32; n * classes];
    let loss = on_cpu.loss_and_gradient(&logits, &targets, &mut gradient).unwrap();

    let mut on_device = Criterion::new(&options.clone().device(DEVICE)).unwrap();
    // SAFETY: a stream of the device that lives until the process ends.
    let stream = unsafe { CudaStream::from_raw(standin.stream()) };
    let (device_logits, device_targets) =
        (DeviceMemory::from(bytemuck::cast_slice(&logits)), DeviceMemory::from(bytemuck::cast_slice(&targets)));
    let (device_loss, device_gradient) = (DeviceMemory::new(4), DeviceMemory::new(n * classes * 4));
    let batch = Batch::new(device_logits.view(DType::F32, &[n, classes]), device_targets.view(DType::I64, &[n])).stream(stream);
    on_device.forward(&batch, Some(device_loss.output(DType::F32, &[])), Some(device_gradient.output(DType::F32, &[n, classes]))).unwrap();
    assert_eq!(standin.get("last_stream"), stream.as_raw() as i64);
    standin.wait();
    let found = bytemuck::pod_read_unaligned::<f32>(device_loss.bytes());
    assert!((found - loss).abs() <= 2e-6 * loss, "{found} {loss}");
    for (found, expected) in bytemuck::pod_collect_to_vec::<u8, f32>(device_gradient.bytes()).iter().zip(&gradient) {
        assert!((found - expected).abs() <= 1e-7, "{found} {expected}");
    }

    // The statistics are where an all-reduce would find them.
    let statistics = on_device.statistics_mut();
    let shapes = [&statistics.sums, &statistics.counts, &statistics.counters].map(|it| (it.dtype(), it.device(), it.shape().to_vec()));
    assert_eq!(shapes, [vec![6, 6], vec![6], vec![4]].map(|shape| (DType::I64, DEVICE, shape)));
    let mut counts = statistics.counts;
    // SAFETY: memory of the stand-in, which is host memory; nothing runs.
    let counts = unsafe { std::slice::from_raw_parts(counts.as_mut_ptr().cast::<i64>(), classes) };
    assert_eq!(counts, on_cpu.counts());

    on_cpu.next_epoch().unwrap();
    on_device.next_epoch_on(stream).unwrap();
    let (finished, running) = on_device.reports_on(stream).unwrap();
    assert_eq!(finished.samples_accumulated, on_cpu.report().samples_accumulated);
    assert_eq!((finished.epoch, running.samples_accumulated), (1, 0));
    let soft_labels = on_device.soft_labels();
    assert_eq!((soft_labels.shape(), soft_labels.strides(), soft_labels.device()), (&[6, 6][..], &[6, 1][..], DEVICE));

    // Saved on the device, loaded on the CPU.
    on_cpu.load_bytes(&on_device.to_bytes_on(stream).unwrap()).unwrap();
    let uniform = DeviceMemory::from(bytemuck::cast_slice(&[0.25f32; 36]));
    on_device.set_soft_labels_on(uniform.view(DType::F32, &[6, 6]), stream).unwrap();
    on_device.load_bytes_on(&on_cpu.to_bytes().unwrap(), stream).unwrap();
    assert_eq!(on_device.to_bytes_on(stream).unwrap(), on_cpu.to_bytes().unwrap());
}

/// Host memory is rejected in place of device memory, and vice versa.
#[test]
fn cuda_from_rust_checks_memory() {
    let _standin = Standin::new();
    let mut criterion = Criterion::new(&Options::new(3).device(DEVICE)).unwrap();
    let (logits, targets) = ([0f32; 3], [0u8]);
    let on_host = Batch::new(TensorRef::new(&logits, &[1, 3]).unwrap(), TensorRef::from(&targets[..]));
    assert_eq!(criterion.forward(&on_host, None, None).unwrap_err().kind(), ErrorKind::InvalidDevice);
    // SAFETY: rejected, since it is not device memory, before anything reads it.
    let pretended = |data: *const c_void, dtype, shape: &[usize]| unsafe { TensorRef::from_raw(data, dtype, DEVICE, shape, None).unwrap() };
    let batch = Batch::new(pretended(logits.as_ptr().cast(), DType::F32, &[1, 3]), pretended(targets.as_ptr().cast(), DType::U8, &[1]));
    let error = criterion.forward(&batch, None, None).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidDevice && error.message().contains("logits.data"), "{error}");
    // SAFETY: rejected because of its address.
    let misaligned = unsafe { TensorRef::from_raw(logits.as_ptr().cast::<u8>().wrapping_add(1).cast(), DType::F32, DEVICE, &[1], None) };
    assert_eq!(misaligned.unwrap_err().kind(), ErrorKind::InvalidArgument);
    // SAFETY: rejected because of its strides.
    let strided = unsafe { TensorRef::from_raw(logits.as_ptr().cast(), DType::F32, DEVICE, &[1], Some(&[1, 1])) };
    assert_eq!(strided.unwrap_err().kind(), ErrorKind::InvalidShape);
}
