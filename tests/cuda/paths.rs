//! The kernels for compute capability 9.0: bulk additions and clusters give the bits of the plain ones, whatever the schedule.

use ols::capi::*;
use ols::{DType, Initial, Options, Reduction, Update};
use proptest::prelude::*;

use crate::device::{BatchOnDevice, CudaCriterion, OnDevice, raw_options, tensor};
use crate::standin::{DeviceMemory, Standin};
use crate::support::buffer::Buffer;
use crate::support::hex::Hex;
use crate::support::life::{Shape, bits, config, grad_view, loss_view, reduction, shape};
use crate::support::model::{CaseBatch, View};
use crate::support::runner::State;

/// What a criterion makes of a batch that is added three times and taken back once.
#[derive(Debug, PartialEq)]
struct Made {
    passes: Vec<Vec<Vec<u64>>>,
    state: State,
}

/// And the kernels that it launched.
fn make(standin: &Standin, path: &str, options: &Options, batch: &CaseBatch, in_place: bool) -> (Made, Vec<String>) {
    standin.path(path);
    let mut criterion = CudaCriterion::new(options).unwrap();
    standin.kernels();
    let (loss, grad) = (loss_view(options, batch), grad_view(batch));
    let mut passes = Vec::new();
    for update in [Update::Add, Update::None, Update::Add, Update::Add, Update::TakeBack] {
        let (result, outputs) = criterion.forward(standin, batch, update, &loss, &grad, in_place && update != Update::TakeBack);
        result.unwrap();
        passes.push(bits(&outputs));
    }
    let (result, outputs) = criterion.backward(standin, batch, grad.as_ref().unwrap());
    result.unwrap();
    passes.push(bits(&outputs));
    let kernels = standin.kernels();
    (Made { passes, state: criterion.state(standin) }, kernels)
}

fn options(classes: usize, alpha: f64, weighted: bool, reduction: Reduction) -> Options {
    let options = Options::new(classes).alpha(alpha).initial(Initial::Smoothing(0.3)).reduction(reduction);
    if weighted { options.class_weights((0..classes).map(|class| 0.1 + (class % 7) as f64).collect::<Vec<_>>()) } else { options }
}

/// Classes for each variant: both kinds of rows of A (of an odd number of classes every second begins between multiples of 16 bytes).
fn classes() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 257..700usize, 1 => Just(2047usize), 1 => Just(2048usize), 2 => 2049..2600usize, 1 => Just(4099usize)]
}

proptest! {
    #![proptest_config(config(40))]

    /// Loss, gradient and state, with threads, blocks and clusters in any order, in every layout, with infinite, missing and huge logits.
    #[test]
    fn cuda_paths_give_the_same_bits(
        classes in classes(), alpha in prop_oneof![Just(0.0), Just(0.4), Just(1.0)], weighted in any::<bool>(), reduction in reduction(),
        shape in shape(3), seed in 1..1000i64, cached in any::<bool>(),
    ) {
        let standin = Standin::new();
        // Few clusters, so that one has several rows; and rows that fit no block's memory.
        standin.set("multiprocessors", 16);
        standin.set("shared_limit", if cached { 227 * 1024 } else { 2 * 1024 });
        let options = options(classes, alpha, weighted, reduction);
        let batch = Shape { n: shape.n.min(4), inner: shape.inner.map(|inner| inner.min(2)), ..shape }.batch(classes, &options);
        let (plain, kernels) = make(&standin, "plain", &options, &batch, false);
        prop_assert!(kernels.iter().all(|name| !name.contains("bulk") && !name.contains("cluster")), "{kernels:?}");
        for (number, path) in ["bulk", "cluster"].into_iter().enumerate() {
            standin.set("seed", seed + number as i64);
            let (made, kernels) = make(&standin, path, &options, &batch, (seed + number as i64) % 2 == 0 && batch.logits.view.strides.is_none());
            prop_assert!(made == plain, "{path}: other bits; {kernels:?}");
            let wanted = if classes <= 2048 { "bulk128" } else if path == "bulk" || batch.logits.dtype.0 == DType::F64 { "bulk512" } else { "cluster" };
            prop_assert!(kernels.iter().all(|name| name.contains(wanted) || name == "ols_divisor"), "{path}: {kernels:?}");
        }
    }
}

/// State that begins between two multiples of 16 bytes, and whose rows lie an odd number of entries apart.
#[test]
fn cuda_paths_take_any_alignment() {
    let standin = Standin::new();
    for (classes, gap, offset) in [(300, 0, 1), (301, 1, 0), (300, 1, 1), (2050, 1, 0), (2051, 0, 1)] {
        let options = options(classes, 0.5, false, Reduction::Mean);
        let shape = Shape::rows(DType::F32, 5, 4);
        let batch = shape.batch(classes, &options);
        let found: Vec<_> = ["plain", "bulk", "cluster"]
            .map(|path| {
                standin.path(path);
                let view = View::strided(&[classes, classes], &[(classes + gap) as isize, 1]).padded(offset, 0);
                let sums = DeviceMemory::from(&vec![7; view.length() * 8]);
                let mut raw = raw_options(&options);
                raw.device_type = OLS_DEVICE_CUDA;
                raw.sums = tensor(sums.pointer(), DType::I64, &view, 0);
                let mut criterion = CudaCriterion::from_raw(&raw, &options).unwrap();
                for update in [Update::Add, Update::Add, Update::TakeBack] {
                    criterion.forward(&standin, &batch, update, &None, &None, false).0.unwrap();
                }
                let state = criterion.state(&standin);
                drop(criterion);
                (state, sums.bytes().to_vec())
            })
            .into();
        assert!(found[0].0.counts.iter().sum::<i64>() > 0);
        for (path, it) in [("bulk", &found[1]), ("cluster", &found[2])] {
            assert!(*it == found[0], "{path} {classes} {gap} {offset}");
        }
    }
}

/// A row so long that each block of a cluster has several tiles of it, and that would not fit one block's memory.
#[test]
fn cuda_very_long_rows_have_the_same_bits_in_every_way() {
    let standin = Standin::new();
    standin.set("spoils", 0);
    standin.set("shared_limit", 48 * 1024);
    const K: usize = 20_001;
    let options = Options::new(K).alpha(1.0).reduction(Reduction::None);
    let shape = Shape { special: vec![(K + 7, 0)], ..Shape::rows(DType::F32, 3, 9) };
    let batch = shape.batch(K, &options);
    let (logits, targets) = (batch.rows().logits, batch.targets.values.clone());
    let mut first = None;
    for (path, kernel) in
        [("plain", "ols_rows512_f32"), ("bulk", "ols_bulk512_f32"), ("cluster", "ols_cluster_f32"), ("hopper", "ols_cluster_f32")]
    {
        standin.path(path);
        standin.set("seed", path.len() as i64);
        standin.set("multiprocessors", if path == "hopper" { 132 } else { 16 });
        // Adopted, so that it is touched where a sample is added alone: zeros as the system gives them.
        let (soft_labels, sums) = (DeviceMemory::new(K * K * 4), DeviceMemory::new(K * K * 8));
        let mut raw = raw_options(&options);
        raw.device_type = OLS_DEVICE_CUDA;
        raw.flags = OLS_OPTIONS_ADOPT_STATE;
        raw.soft_labels = tensor(soft_labels.pointer(), DType::F32, &View::new(&[K, K]), 0);
        raw.sums = tensor(sums.pointer(), DType::I64, &View::new(&[K, K]), 0);
        let mut criterion = CudaCriterion::from_raw(&raw, &options).unwrap();
        standin.kernels();
        let (result, outputs) =
            criterion.forward(&standin, &batch, Update::Add, &loss_view(&options, &batch), &grad_view(&batch), path == "cluster");
        result.unwrap();
        assert_eq!(standin.kernels(), [kernel]);
        let (buffer, view) = outputs.loss.as_ref().unwrap();
        for (row, (&loss, &target)) in buffer.values(view).iter().zip(&targets).enumerate() {
            let logits = &logits[row * K..][..K];
            let exact = logits.iter().map(|z| z.exp()).sum::<f64>().ln() - logits[target as usize];
            assert!((loss - exact).abs() <= 2e-6 * exact.max(1.0), "{path}: {loss} differs from {exact}");
        }
        let added: Vec<Vec<u8>> = targets.iter().map(|&target| sums.bytes()[target as usize * K * 8..][..K * 8].to_vec()).collect();
        assert!(added.iter().flatten().any(|&byte| byte != 0));
        let found = (bits(&outputs), added);
        assert!(*first.get_or_insert_with(|| found.clone()) == found, "{path}: other bits");
    }
}

/// A class that fills up within a batch takes as many as the plain way lets it.
#[test]
fn cuda_paths_know_full_classes() {
    let standin = Standin::new();
    for classes in [300, 2100] {
        let options = options(classes, 0.5, false, Reduction::Sum);
        let shape = Shape::rows(DType::Bf16, 6, 1);
        let mut batch = shape.batch(classes, &options);
        batch.targets.values.fill(1);
        for (index, value) in &mut batch.logits.set {
            *value = Hex(if *index % classes == 1 { 9.0 } else { 0.0 });
        }
        for path in ["bulk", "cluster"] {
            standin.path(path);
            let mut criterion = CudaCriterion::new(&options).unwrap();
            // SAFETY: memory of the stand-in, which is host memory; nothing runs.
            unsafe { criterion.views()[2].data.cast::<i64>().add(1).write((1 << 32) - 2) };
            criterion.enqueue(&BatchOnDevice::new(&batch), Update::Add, None, None).unwrap();
            let state = criterion.state(&standin);
            assert_eq!(state.counts[1], 1 << 32, "{path}");
            let row: i64 = state.sums[classes..2 * classes].iter().sum();
            assert!((row - (2 << 30)).abs() < 5000, "{path}: two samples were added: {row}");
        }
    }
}

/// A captured step with a cluster in it is replayed like any other.
#[test]
fn cuda_paths_can_be_captured() {
    let standin = Standin::new();
    for path in ["bulk", "cluster"] {
        standin.path(path);
        let options = options(2100, 0.5, false, Reduction::Mean);
        let shape = Shape::rows(DType::F32, 3, 2);
        let batch = BatchOnDevice::new(&shape.batch(2100, &options));
        let mut criterion = CudaCriterion::new(&options).unwrap();
        criterion.stream = standin.stream();
        let loss = OnDevice::new(&Buffer::unused(DType::F32, 1), DType::F32, &View::new(&[]));
        let before = ["allocations", "synchronisations", "copies"].map(|name| standin.get(name));
        let tensor = loss.tensor(0);
        let step = standin.capture(criterion.stream, || criterion.enqueue(&batch, Update::Add, Some(&tensor), None).unwrap());
        assert_eq!(before, ["allocations", "synchronisations", "copies"].map(|name| standin.get(name)));
        for _ in 0..3 {
            standin.replay(step, std::ptr::null_mut());
        }
        assert_eq!(criterion.state(&standin).counts.iter().sum::<i64>(), 3 * 2);
        assert!(loss.back().0.get(0) > 0.0);
        standin.destroy_graph(step);
    }
}

/// What asks for them gets them or an error; nobody else does, and the module is not loaded for nobody.
#[test]
fn cuda_paths_are_off_unless_asked_for() {
    let standin = Standin::new();
    let options = Options::new(600);
    let launched = |path: &str, n: usize, classes: usize, dtype: DType| {
        standin.path(path);
        let shape = Shape::rows(dtype, n, 2);
        let batch = BatchOnDevice::new(&shape.batch(classes, &options));
        let mut criterion = CudaCriterion::new(&Options::new(classes)).unwrap();
        standin.kernels();
        criterion.enqueue(&batch, Update::Add, None, None).unwrap();
        standin.kernels().concat()
    };
    // The table of variants, for each way to ask.
    for (path, classes, dtype, kernel) in [
        ("plain", 600, DType::F32, "ols_rows128_f32"),
        ("plain", 2100, DType::F16, "ols_rows512_f16"),
        ("", 2100, DType::F32, "ols_rows512_f32"),
        ("hopper", 100, DType::F32, "ols_rows32_f32"),
        ("hopper", 300, DType::F32, "ols_rows128_f32"),
        ("hopper", 600, DType::F64, "ols_bulk128_f64"),
        ("hopper", 2100, DType::Bf16, "ols_bulk512_bf16"),
        ("bulk", 300, DType::F16, "ols_bulk128_f16"),
        ("cluster", 300, DType::F32, "ols_bulk128_f32"),
        ("cluster", 2100, DType::Bf16, "ols_cluster_bf16"),
        ("cluster", 2100, DType::F16, "ols_cluster_f16"),
        ("cluster", 2100, DType::F64, "ols_bulk512_f64"),
    ] {
        assert_eq!(launched(path, 2, classes, dtype), kernel, "{path} {classes} {dtype:?}");
    }
    let refused = |status: ols_status_t, text: &str| {
        let failure = CudaCriterion::new(&options).err().unwrap();
        assert!(failure.status == status && failure.text.contains(text), "{failure:?}");
        assert_eq!(standin.get("references"), 0);
    };
    standin.path("fast");
    refused(ols_status_t::OLS_STATUS_INVALID_ARGUMENT, "OLS_CUDA_PATH = \"fast\" is not plain, hopper, bulk or cluster");
    standin.set("capability", 89);
    standin.path("hopper");
    refused(ols_status_t::OLS_STATUS_UNSUPPORTED, "compute capability 8.9, but what OLS_CUDA_PATH asks for needs 9.0");
    standin.set("capability", 90);
    standin.set("multiprocessors", 7);
    refused(ols_status_t::OLS_STATUS_UNSUPPORTED, "cuda:0: clusters of 8 blocks do not fit this device");
    standin.set("capability", 89);
    standin.path("plain");
    CudaCriterion::new(&options).unwrap();
}
