//! What users of a device rely on apart from numerical results: nothing synchronises or allocates, contexts and
//! streams are the caller's, graphs stay valid, and errors leave everything usable.

use std::collections::BTreeMap;

use ols::capi::*;
use ols::{DType, EmptyClass, Options, Reduction, Update};

use crate::alone;
use crate::device::{BatchOnDevice, CudaCriterion, absent, checked, raw_options, tensor};
use crate::fixture::{Fixture, batch};
use crate::standin::{DeviceMemory, Standin};
use crate::support::model::View;

const STATUS_INVALID_DEVICE: ols_status_t = ols_status_t::OLS_STATUS_INVALID_DEVICE;

/// Kernels and host code have the same structs and constants, and the PTX and the machine code contain every kernel.
#[test]
fn cuda_host_and_kernels_agree() {
    let standin = Standin::new();
    let ours: BTreeMap<String, usize> = ols::cuda::layout().into_iter().collect();
    assert_eq!(ours, standin.layout());
    for (file, kernels) in ols::cuda::kernel_names() {
        let ptx = ptx(file);
        for name in &kernels {
            assert!(ptx.contains(&format!(".visible .entry {name}(")), "{name}");
        }
        assert_eq!(ptx.matches(".visible .entry ").count(), kernels.len(), "{file}");
        for machine in if file == "ols" { &["sm_75", "sm_80"][..] } else { &["sm_90"] } {
            let machine = unpacked(machine);
            for name in &kernels {
                let section = format!("\0.text.{name}\0");
                assert!(machine.windows(section.len()).any(|window| window == section.as_bytes()), "{name}");
            }
        }
    }
}

fn ptx(file: &str) -> String {
    String::from_utf8(unpacked(&format!("{file}.ptx"))).unwrap()
}

fn unpacked(name: &str) -> Vec<u8> {
    let packed = std::fs::read(crate::standin::root().join(format!("cuda/compiled/{name}.zz"))).unwrap();
    miniz_oxide::inflate::decompress_to_vec_zlib(&packed).unwrap()
}

/// Drivers from CUDA 12.0 on accept the PTX, which is for compute capabilities 7.5 and 9.0, and it was compiled from
/// the present sources.
#[test]
fn cuda_ptx_is_for_old_drivers_and_not_stale() {
    let stated = format!("// Sources: crc32 {}\n", crate::standin::sources());
    for (file, target) in [("ols", "sm_75"), ("hopper", "sm_90")] {
        let ptx = ptx(file);
        assert!(ptx.contains(&format!("\n.version 8.0\n.target {target}\n")), "{file}");
        assert!(ptx.contains(&stated), "cuda/compiled is stale: run cuda/build");
    }
    // The architecture of machine code is in the low byte of the flags in its ELF header.
    for capability in [75, 80, 90] {
        let machine = unpacked(&format!("sm_{capability}"));
        assert_eq!((&machine[..4], machine[48]), (&b"\x7fELF"[..], capability));
    }
}

/// Compiling again gives the committed PTX and machine code, and no kernel spills registers on any architecture.
#[test]
fn cuda_ptx_can_be_made_again_without_spills() {
    let answer = std::process::Command::new(crate::standin::root().join("cuda/build")).arg("--check").output().expect("cuda/build runs");
    assert!(answer.status.success(), "{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    println!("{}", String::from_utf8_lossy(&answer.stdout));
}

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

/// A rejected creation leaves the caller's memory unchanged, whatever the reason.
#[test]
fn cuda_refused_creation_writes_nothing() {
    let (passed, said) = alone::run_alone("behaviour::creation_is_refused", &[("OLS_ISA", "none")]);
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
    assert_eq!(CudaCriterion::from_raw(&raw, &options).err().unwrap().status, STATUS_INVALID_DEVICE);
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

/// Runs tests that together launch every kernel once more under AddressSanitizer and UndefinedBehaviorSanitizer,
/// which cover the kernels and all device memory.
#[test]
fn cuda_under_sanitizers() {
    if std::env::var_os(crate::standin::SANITIZED).is_some() {
        return;
    }
    drop(Standin::new());
    crate::standin::build(true);
    let runtime = std::process::Command::new("g++").arg("-print-file-name=libasan.so").output().unwrap();
    let runtime = String::from_utf8(runtime.stdout).unwrap();
    let answer = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--test-threads=1",
            "conformance_layouts",
            "callers",
            "full_classes",
            "long_rows",
            "probabilities",
            "saved",
            "paths",
            "usual",
            "within_their_tensors",
            "--skip=very_long",
            "--skip=on_the_grid",
            "--skip=in_every_kernel",
        ])
        .env(crate::standin::SANITIZED, "1")
        .env("PROPTEST_CASES", "10")
        .env("LD_PRELOAD", runtime.trim())
        // Fibers leave their stacks by longjmp, and globals of the test program are never freed.
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    assert!(answer.status.success(), "{text}");
    assert!(text.contains("test result: ok"), "{text}");
}

/// The sanitizer does detect errors: here, a gradient that is longer than its memory.
#[test]
fn cuda_sanitizer_finds_writes_behind_the_end() {
    const CHILD: &str = "OLS_TEST_OVERFLOW";
    if std::env::var_os(CHILD).is_some() {
        let standin = Standin::new();
        let mut criterion = CudaCriterion::new(&Options::new(5)).unwrap();
        let fixture = Fixture::new(4, 5, 1);
        let short = DeviceMemory::new(4 * 5 * 4 - 4);
        let grad = tensor(short.pointer(), DType::F32, &View::new(&[4, 5]), 0);
        criterion.enqueue(&fixture.batch, Update::Add, None, Some(&grad)).unwrap();
        standin.wait();
        return;
    }
    if std::env::var_os(crate::standin::SANITIZED).is_some() {
        return;
    }
    crate::standin::build(true);
    let runtime = std::process::Command::new("g++").arg("-print-file-name=libasan.so").output().unwrap();
    let answer = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--test-threads=1", "sanitizer_finds"])
        .env(crate::standin::SANITIZED, "1")
        .env(CHILD, "1")
        .env("LD_PRELOAD", String::from_utf8(runtime.stdout).unwrap().trim())
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(!answer.status.success() && text.contains("heap-buffer-overflow"), "{text}");
}

/// The program for GPU machines is at least valid: its Python compiles, and the part that needs neither PyTorch nor a
/// GPU runs on the stand-in.
#[test]
fn cuda_check_program_runs_on_the_standin() {
    use std::process::Command;
    let root = crate::standin::root();
    let answer = Command::new(env!("CARGO")).current_dir(&root).args(["build", "--release", "--lib"]).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let standin = crate::standin::build(false);
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::os::unix::fs::symlink(&standin, folder.path().join(name)).unwrap();
    }
    let library = target.join("release/libols.so");
    let sanitized = vec![root.join("cuda/checking/sanitized.py").into_os_string(), library.into_os_string(), "--quick".into()];
    let compile =
        ["-c".into(), "import ast, pathlib, sys\nfor path in sys.argv[1:]: ast.parse(pathlib.Path(path).read_text(), path)".into()];
    let sources = std::fs::read_dir(root.join("cuda/checking")).unwrap().map(|entry| entry.unwrap().path());
    let sources =
        sources.filter(|path| path.extension().is_some_and(|it| it == "py")).chain([root.join("cuda/check"), root.join("cuda/build")]);
    let compile: Vec<std::ffi::OsString> = compile.into_iter().chain(sources.map(std::path::PathBuf::into_os_string)).collect();
    for (arguments, wanted) in [(compile, vec![]), (sanitized, vec!["default: 23 cases", "plain: 19 cases"])] {
        let answer =
            Command::new("python3").arg("-B").args(&arguments).env("LD_LIBRARY_PATH", folder.path()).output().expect("python3 runs");
        let printed = String::from_utf8_lossy(&answer.stdout);
        assert!(answer.status.success(), "{printed}{}", String::from_utf8_lossy(&answer.stderr));
        assert!(wanted.iter().all(|text| printed.contains(text)), "{printed}");
    }
}
