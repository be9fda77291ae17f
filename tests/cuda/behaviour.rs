//! What users of a device rely on apart from numerical results: nothing synchronises or allocates, contexts and
//! streams are the caller's, state may be, and nothing is lost.

use ols::capi::*;
use ols::{DType, EmptyClass, Options, Reduction, Update};

use crate::device::{BatchOnDevice, CudaCriterion, checked, raw_options, tensor};
use crate::fixture::{Fixture, batch};
use crate::standin::{DeviceMemory, Standin};
use crate::support::model::View;

/// Forward, backward, statistics alone, taking back and the end of an epoch only enqueue work: on the caller's
/// stream, and in no more kernels than documented.
#[test]
fn cuda_calls_only_enqueue() {
    let standin = Standin::new();
    let mut criterion = CudaCriterion::new(&Options::new(10)).unwrap();
    criterion.stream = standin.stream();
    let (small, large) = (Fixture::new(8, 10, 1), Fixture::new(2100, 10, 2));
    let context = standin.current();
    standin.kernels();
    let before = ["allocations", "synchronisations", "copies", "live_bytes", "references"].map(|name| standin.get(name));
    small.forward(&mut criterion, Update::Add);
    assert_eq!(standin.kernels(), ["ols_few32_f32"]);
    large.forward(&mut criterion, Update::Add);
    assert_eq!(standin.kernels(), ["ols_staged_f32"]);
    let raw = large.batch.raw(Update::Add, 0, criterion.stream);
    // SAFETY: a live criterion, and tensors on its device.
    checked(unsafe { ols_backward(criterion.handle, &raw, std::ptr::null(), &large.grad.tensor(0)) }).unwrap();
    assert_eq!(standin.kernels(), ["ols_staged_f32"]);
    criterion.enqueue(&small.batch, Update::Add, None, None).unwrap();
    assert_eq!(standin.kernels(), ["ols_few32_f32"]);
    small.forward(&mut criterion, Update::TakeBack);
    assert_eq!(standin.kernels(), ["ols_rows8_any_f32", "ols_rows8_any_f32"]);
    criterion.next_epoch().unwrap();
    assert_eq!(standin.kernels(), ["ols_epoch_begin", "ols_epoch_rows"]);
    assert_eq!(standin.get("last_stream"), criterion.stream as i64);
    assert_eq!(before, ["allocations", "synchronisations", "copies", "live_bytes", "references"].map(|name| standin.get(name)));
    assert!(standin.get("queued") >= 8, "nothing has run yet");
    assert_eq!(standin.current(), context);
    let report = criterion.report().unwrap();
    assert_eq!(standin.get("queued"), 0, "the report waits");
    assert!(report.samples_accumulated >= 1000 + 4);
}

/// Every call preserves the caller's current context.
#[test]
fn cuda_calls_restore_the_context() {
    let standin = Standin::new();
    let fixture = Fixture::new(4, 5, 1);
    let options = Options::new(5);
    for of_caller in [None, Some(1), Some(0)] {
        match of_caller {
            Some(device) => standin.enter(device),
            None => standin.set_current(std::ptr::null_mut()),
        }
        let context = standin.current();
        let mut criterion = CudaCriterion::new(&options).unwrap();
        assert_eq!(standin.current(), context, "create");
        fixture.forward(&mut criterion, Update::Add);
        assert_eq!(standin.current(), context, "forward");
        criterion.next_epoch().unwrap();
        criterion.report().unwrap();
        let bytes = criterion.save();
        criterion.load(&bytes).unwrap();
        let raw = fixture.batch.raw(Update::Add, 1, std::ptr::null_mut());
        // SAFETY: a live criterion; the tensors are said to be on another device.
        assert!(checked(unsafe { ols_forward(criterion.handle, &raw, std::ptr::null(), std::ptr::null()) }).is_err());
        assert_eq!(standin.current(), context, "a failure");
        drop(criterion);
        assert_eq!(standin.current(), context, "destroy");
    }
    standin.enter(0);
}

/// Two criteria on two devices, or on two streams of one device, used by two threads at once.
#[test]
fn cuda_two_criteria_at_once() {
    let standin = Standin::new();
    let options = Options::new(7);
    let run = |device: i32| {
        standin.enter(device);
        let fixture = Fixture::new(40, 7, 3);
        let mut criterion = CudaCriterion::on(&options, device).unwrap();
        criterion.stream = standin.stream();
        fixture.forward(&mut criterion, Update::Add);
        criterion.next_epoch().unwrap();
        let state = criterion.state(&standin);
        (fixture.bits(), state.soft_labels)
    };
    for other in [1, 0] {
        let (first, second) = std::thread::scope(|scope| {
            let (first, second) = (scope.spawn(|| run(0)), scope.spawn(move || run(other)));
            (first.join().unwrap(), second.join().unwrap())
        });
        assert!(first == second);
    }
    standin.enter(0);
}

/// State in the caller's memory: strided rows, adopted or initialised; nothing is copied, and the gaps between rows
/// are preserved.
#[test]
fn cuda_state_may_be_the_callers() {
    let standin = Standin::new();
    const K: usize = 5;
    let own = Fixture::new(20, K, 6);
    let options = Options::new(K);
    let mut plain = CudaCriterion::new(&options).unwrap();
    own.forward(&mut plain, Update::Add);
    let view = View::strided(&[K, K], &[K as isize + 2, 1]);
    let length = view.length() + 2;
    let (soft_labels, sums) = (DeviceMemory::from(&vec![7; length * 4]), DeviceMemory::from(&vec![7; length * 8]));
    let (counts, counters) = (DeviceMemory::from(&[7; K * 8]), DeviceMemory::from(&[7; 32]));
    let mut raw = raw_options(&options);
    raw.device_type = OLS_DEVICE_CUDA;
    raw.soft_labels = tensor(soft_labels.pointer(), DType::F32, &view, 0);
    raw.sums = tensor(sums.pointer(), DType::I64, &view, 0);
    raw.counts = tensor(counts.pointer(), DType::I64, &View::new(&[K]), 0);
    raw.counters = tensor(counters.pointer(), DType::I64, &View::new(&[4]), 0);
    {
        let mut criterion = CudaCriterion::from_raw(&raw, &options).unwrap();
        own.forward(&mut criterion, Update::Add);
        assert!(criterion.state(&standin) == plain.state(&standin));
        for row in 0..K - 1 {
            for gap in K..K + 2 {
                assert_eq!(soft_labels.bytes()[(row * (K + 2) + gap) * 4..][..4], [7; 4]);
                assert_eq!(sums.bytes()[(row * (K + 2) + gap) * 8..][..8], [7; 8]);
            }
        }
        let bytes = criterion.save();
        let mut fresh = CudaCriterion::new(&options).unwrap();
        fresh.load(&bytes).unwrap();
        assert!(fresh.state(&standin) == criterion.state(&standin));
    }
    raw.flags = OLS_OPTIONS_ADOPT_STATE;
    let mut adopted = CudaCriterion::from_raw(&raw, &options).unwrap();
    assert!(adopted.state(&standin) == plain.state(&standin));
    adopted.next_epoch().unwrap();
    plain.next_epoch().unwrap();
    assert!(adopted.state(&standin) == plain.state(&standin));
    raw.sums.device_id = 1;
    assert_eq!(CudaCriterion::from_raw(&raw, &options).err().unwrap().status, ols_status_t::OLS_STATUS_INVALID_DEVICE);
}

/// A run that is saved and continued elsewhere, on a device or on the CPU, ends like an uninterrupted one.
#[test]
fn cuda_saved_runs_go_on() {
    let standin = Standin::new();
    let weights: Vec<f64> = (0..6).map(|class| f64::from(class) * 0.5).collect();
    let matrix: Vec<f32> = (0..36).map(|index| index as f32 / 100.0).collect();
    let options = Options::new(6).class_weights(weights).initial(ols::Initial::Matrix(matrix)).empty_class(EmptyClass::Initial);
    let (first, second) = (Fixture::new(30, 6, 1), Fixture::new(30, 6, 2));
    let mut one = CudaCriterion::new(&options).unwrap();
    first.forward(&mut one, Update::Add);
    let bytes = one.save();
    let mut cpu = ols::Criterion::new(&Options::new(6)).unwrap();
    cpu.load_bytes(&bytes).unwrap();
    assert_eq!(cpu.counts(), one.state(&standin).counts);
    let mut other = CudaCriterion::new(&Options::new(6)).unwrap();
    other.load(&cpu.to_bytes().unwrap()).unwrap();
    for criterion in [&mut one, &mut other] {
        second.forward(criterion, Update::Add);
        criterion.next_epoch().unwrap();
    }
    assert!(one.state(&standin) == other.state(&standin));
    assert_eq!(one.save(), other.save());
    // Damaged bytes are rejected without changing anything.
    let state = other.state(&standin);
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(other.load(&damaged).unwrap_err().status, ols_status_t::OLS_STATUS_INVALID_FILE);
    assert!(other.state(&standin) == state);
}

/// A class with 2^32 samples is full; a class with one sample less accepts one more sample of a batch.
#[test]
fn cuda_full_classes_take_no_more() {
    let standin = Standin::new();
    for (classes, n) in [(4, 40), (40, 12), (300, 6)] {
        let mut criterion = CudaCriterion::new(&Options::new(classes)).unwrap();
        let mut given = batch(n, classes, 1);
        given.targets.values.fill(1);
        for (index, value) in &mut given.logits.set {
            value.0 = if *index % classes == 1 { 9.0 } else { 0.0 };
        }
        let counts = criterion.views()[2].data.cast::<i64>();
        // SAFETY: memory of the stand-in, which is host memory; nothing runs.
        unsafe { counts.add(1).write((1 << 32) - 1) };
        let on_device = BatchOnDevice::new(&given);
        criterion.enqueue(&on_device, Update::Add, None, None).unwrap();
        let state = criterion.state(&standin);
        assert_eq!(state.counts[1], 1 << 32);
        let row: i64 = state.sums[classes..2 * classes].iter().sum();
        assert!((row - (1 << 30)).abs() < 1000, "one sample was added: {row}");
        assert_eq!(criterion.report().unwrap().running_classes_full, 1);
    }
}

/// Targets out of range are counted once, have no loss and no gradient, and affect nothing else.
#[test]
fn cuda_counts_wrong_targets() {
    let standin = Standin::new();
    for inner in [None, Some(3)] {
        let mut criterion = CudaCriterion::new(&Options::new(4).reduction(Reduction::None)).unwrap();
        let shape: Vec<usize> = [2, 4].into_iter().chain(inner).collect();
        let samples = 2 * inner.unwrap_or(1);
        let mut given = batch(samples, 4, 1);
        given.logits.view = View::new(&shape);
        given.targets.view = View::new(&[2].into_iter().chain(inner).collect::<Vec<_>>());
        given.targets.values = vec![0; samples];
        given.targets.values[0] = 4;
        given.targets.values[samples - 1] = -1;
        let (loss, grad) = (Some(given.targets.view.clone()), Some(View::new(&shape)));
        let (result, outputs) = criterion.forward(&standin, &given, Update::Add, &loss, &grad, false);
        result.unwrap();
        let (buffer, view) = outputs.loss.unwrap();
        let losses = buffer.values(&view);
        assert!(losses[0] == 0.0 && losses[samples - 1] == 0.0 && losses[1..samples - 1].iter().all(|&loss| loss > 0.0));
        let (buffer, view) = outputs.grad.unwrap();
        let (gradient, width) = (buffer.values(&view), inner.unwrap_or(1));
        for sample in 0..samples {
            let of_sample = (0..4).map(|class| gradient[(sample / width * 4 + class) * width + sample % width]);
            assert_eq!(of_sample.clone().all(|value| value == 0.0), sample == 0 || sample == samples - 1, "{sample}");
        }
        criterion.forward(&standin, &given, Update::None, &loss, &grad, false).0.unwrap();
        criterion.backward(&standin, &given, grad.as_ref().unwrap()).0.unwrap();
        assert_eq!(criterion.report().unwrap().running_targets_out_of_range, 2);
        assert_eq!(criterion.counters(&standin)[1], 2);
        criterion.next_epoch().unwrap();
        let report = criterion.report().unwrap();
        assert_eq!((report.targets_out_of_range, report.running_targets_out_of_range), (2, 0));
    }
}
