//! Everything that can be wrong on a device is an error that names it, and leaves criterion, process and context usable.

use ols::capi::*;
use ols::{DType, Options, Update};

use crate::alone;
use crate::device::{CudaCriterion, absent, checked, raw_options, tensor};
use crate::fixture::Fixture;
use crate::standin::{DeviceMemory, Standin};
use crate::support::model::View;

const STATUS_INVALID_DEVICE: ols_status_t = ols_status_t::OLS_STATUS_INVALID_DEVICE;

/// A rejected creation leaves the caller's memory unchanged, whatever the reason.
#[test]
fn cuda_refused_creation_writes_nothing() {
    let (passed, said) = alone::run_alone("errors::creation_is_refused", &[("OLS_ISA", "none")]);
    assert!(passed, "{said}");
}

#[test]
#[ignore = "run in a process of its own, by the test above"]
fn creation_is_refused() {
    let _standin = Standin::new();
    let options = Options::new(3);
    let sums = DeviceMemory::from(&[7; 72]);
    let mut raw = raw_options(&options);
    raw.device_type = OLS_DEVICE_CUDA;
    raw.sums = tensor(sums.pointer(), DType::I64, &View::new(&[3, 3]), 0);
    let failure = CudaCriterion::from_raw(&raw, &options).err().unwrap();
    assert!(failure.status == ols_status_t::OLS_STATUS_INVALID_ARGUMENT && failure.text.contains("OLS_ISA"), "{failure:?}");
    assert_eq!(sums.bytes(), [7; 72]);
}

/// Errors of earlier work, such as a kernel of the caller's, are reported by the next call that asks the driver.
#[test]
fn cuda_earlier_errors_are_told() {
    let standin = Standin::new();
    let fixture = Fixture::new(20, 5, 3);
    let mut criterion = CudaCriterion::new(&Options::new(5)).unwrap();
    standin.set("earlier_error", 700);
    let failure = criterion.enqueue(&fixture.batch, Update::Add, Some(&fixture.loss.tensor(0)), None).unwrap_err();
    assert_eq!(failure.status, ols_status_t::OLS_STATUS_CUDA);
    assert!(failure.text.contains("logits.data") && failure.text.contains("CUDA error 700"), "{}", failure.text);
    standin.set("earlier_error", 0);
    fixture.forward(&mut criterion, Update::Add);
}

/// Pointers to the wrong memory are errors that name the argument, before anything is enqueued.
#[test]
fn cuda_refuses_wrong_memory() {
    let standin = Standin::new();
    let fixture = Fixture::new(4, 5, 1);
    standin.enter(1);
    let elsewhere = Fixture::new(4, 5, 1);
    let foreign_stream = standin.stream();
    standin.enter(0);
    let mut criterion = CudaCriterion::new(&Options::new(5)).unwrap();
    let mut on_host = [0f32; 20];
    let launches = standin.get("launches");
    let refused = |batch: ols_batch_t, grad: ols_tensor_t, text: &str, status: ols_status_t| {
        // SAFETY: a live criterion; what the tensors name is looked up and not touched.
        let failure = checked(unsafe { ols_forward(criterion.handle, &batch, std::ptr::null(), &grad) }).unwrap_err();
        assert!(failure.status == status && failure.text.contains(text), "{failure:?}");
    };
    let good = || fixture.batch.raw(Update::Add, 0, std::ptr::null_mut());
    let grad = fixture.grad.tensor(0);
    let mut bad = good();
    bad.logits.data = on_host.as_mut_ptr().cast();
    refused(bad, grad, "logits.data = 0x", STATUS_INVALID_DEVICE);
    bad = good();
    bad.targets.data = elsewhere.batch.raw(Update::Add, 1, std::ptr::null_mut()).targets.data;
    refused(bad, grad, "is memory of cuda:1, but the criterion is on cuda:0", STATUS_INVALID_DEVICE);
    bad = good();
    bad.logits.device_type = OLS_DEVICE_CPU;
    refused(bad, grad, "logits.device = cpu", STATUS_INVALID_DEVICE);
    refused(good(), ols_tensor_t { data: on_host.as_mut_ptr().cast(), ..grad }, "grad.data = 0x", STATUS_INVALID_DEVICE);
    refused(good(), ols_tensor_t { device_id: 1, ..grad }, "grad.device = cuda:1", STATUS_INVALID_DEVICE);
    refused(
        good(),
        ols_tensor_t { data: criterion.views()[0].data, ..grad },
        "grad overlaps the criterion's state",
        ols_status_t::OLS_STATUS_INVALID_ARGUMENT,
    );
    assert_eq!(standin.get("launches"), launches);
    bad = good();
    bad.stream = foreign_stream;
    refused(bad, grad, "stream: CUDA error 400 (CUDA_ERROR_INVALID_HANDLE)", ols_status_t::OLS_STATUS_CUDA);

    // Likewise for the other calls that take a tensor or a stream.
    let launches = standin.get("launches");
    let soft_labels =
        ols_tensor_t { data: on_host.as_mut_ptr().cast(), ..tensor(fixture.grad.memory.pointer(), DType::F32, &View::new(&[5, 5]), 0) };
    // SAFETY: as above.
    let failure = checked(unsafe { ols_set_soft_labels(criterion.handle, &soft_labels, std::ptr::null_mut()) }).unwrap_err();
    assert!(failure.status == STATUS_INVALID_DEVICE && failure.text.contains(".data = 0x"), "{failure:?}");
    bad = good();
    bad.logits.data = on_host.as_mut_ptr().cast();
    // SAFETY: as above.
    let failure = checked(unsafe { ols_accumulate(criterion.handle, &bad) }).unwrap_err();
    assert!(failure.status == STATUS_INVALID_DEVICE && failure.text.contains("logits.data = 0x"), "{failure:?}");
    assert_eq!(standin.get("launches"), launches);
    // SAFETY: as above; the stream is one of another device.
    let failure = checked(unsafe { ols_next_epoch(criterion.handle, foreign_stream) }).unwrap_err();
    assert!(failure.status == ols_status_t::OLS_STATUS_CUDA, "{failure:?}");

    // Tensors in the options must be in host memory.
    let options = Options::new(5);
    let mut raw = raw_options(&options);
    raw.device_type = OLS_DEVICE_CUDA;
    raw.class_weights =
        ols_tensor_t { device_type: OLS_DEVICE_CPU, ..tensor(fixture.grad.memory.pointer(), DType::F32, &View::new(&[5]), 0) };
    let failure = CudaCriterion::from_raw(&raw, &options).err().unwrap();
    assert!(failure.status == STATUS_INVALID_DEVICE && failure.text.contains("class_weights.data = 0x"), "{failure:?}");
    raw.class_weights = absent();
    raw.soft_labels = tensor(vec![0u8; 100].leak().as_mut_ptr(), DType::F32, &View::new(&[5, 5]), 0);
    let failure = CudaCriterion::from_raw(&raw, &options).err().unwrap();
    assert!(failure.status == STATUS_INVALID_DEVICE && failure.text.contains("soft_labels.data = 0x"), "{failure:?}");
    // The criterion is still usable.
    fixture.forward(&mut criterion, Update::Add);
    assert!(criterion.report().unwrap().running_samples_accumulated >= 2);
}

/// Unsuitable machines give distinct errors, and nothing is leaked.
#[test]
fn cuda_refuses_machines_that_cannot() {
    let standin = Standin::new();
    let live = standin.get("live_bytes");
    let refused = |device: i32, classes: usize, status: ols_status_t, text: &str| {
        let failure = CudaCriterion::on(&Options::new(classes), device).err().unwrap();
        assert!(failure.status == status && failure.text.contains(text), "{failure:?}");
        assert_eq!((standin.get("live_bytes"), standin.get("references")), (live, 0));
    };
    refused(2, 5, STATUS_INVALID_DEVICE, "device_id = 2 is outside [0, 2)");
    refused(-1, 5, STATUS_INVALID_DEVICE, "device_id = -1");
    standin.set("driver_version", 11_080);
    refused(0, 5, ols_status_t::OLS_STATUS_UNSUPPORTED, "the driver supports CUDA 11.8, but 12.0 or newer is required");
    standin.set("driver_version", 12_000);
    standin.set("capability", 70);
    refused(0, 5, ols_status_t::OLS_STATUS_UNSUPPORTED, "compute capability 7.0, but 7.5 or newer is required");
    standin.set("capability", 90);
    for (limit, classes) in [(0, 100), (50_000, 100), (120_500, 100), (1 << 40, 1_000_000)] {
        standin.set("memory_limit", live + limit);
        refused(0, classes, ols_status_t::OLS_STATUS_OUT_OF_MEMORY, "bytes of device memory");
    }
    standin.set("memory_limit", 1 << 40);
    standin.set("device_count", 0);
    refused(0, 5, ols_status_t::OLS_STATUS_UNSUPPORTED, "100 (CUDA_ERROR_NO_DEVICE): no CUDA-capable device is detected");
    standin.set("device_count", 2);
    standin.enter(0);
    let criterion = CudaCriterion::new(&Options::new(5)).unwrap();
    assert!(criterion.report().is_ok());
    drop(criterion);
    assert_eq!((standin.get("live_bytes"), standin.get("references")), (live, 0));
}

/// In the child of a fork, calls fail with a clear error; the child may destroy its copy, and the parent's criterion
/// is unaffected.
#[test]
fn cuda_in_a_forked_child_is_an_error() {
    let standin = Standin::new();
    let criterion = CudaCriterion::new(&Options::new(5)).unwrap();
    let live = standin.get("live_bytes");
    // SAFETY: the child calls the library on this thread only, and leaves by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let refused = std::panic::catch_unwind(|| {
            let failure = criterion.report().err().unwrap();
            let told = failure.status == ols_status_t::OLS_STATUS_INVALID_STATE && failure.text.contains("before a fork");
            drop(criterion);
            told && standin.get("live_bytes") == live
        });
        // SAFETY: ends the child.
        unsafe { libc::_exit(if matches!(refused, Ok(true)) { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(criterion.report().is_ok());
}
