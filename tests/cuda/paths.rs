//! All kernels that can process a batch give the same bits: the usual and the general form, for any size of the grid
//! and any schedule.

use ols::capi::*;
use ols::{DType, Initial, Options, Reduction, Update};
use proptest::prelude::*;

use crate::device::{BatchOnDevice, CudaCriterion, OnDevice, raw_options, tensor};
use crate::standin::{DeviceMemory, Standin};
use crate::support::buffer::Buffer;
use crate::support::hex::Hex;
use crate::support::life::{Shape, bits, config, grad_view, layout, loss_view, reduction, shape};
use crate::support::model::{CaseBatch, Name, Numbers, View};
use crate::support::runner::State;

/// The results for a batch that is added three times and taken back once.
#[derive(Debug, PartialEq)]
struct Made {
    passes: Vec<Vec<Vec<u64>>>,
    state: State,
}

/// The kernels launched; taking back needs the general form.
fn make(standin: &Standin, path: &str, options: &Options, batch: &CaseBatch, in_place: bool) -> (Made, [Vec<String>; 2]) {
    standin.path(path);
    let mut criterion = CudaCriterion::new(options).unwrap();
    standin.kernels();
    let (loss, grad) = (loss_view(options, batch), grad_view(batch));
    let (mut passes, mut kernels) = (Vec::new(), [vec![], vec![]]);
    for update in [Update::Add, Update::None, Update::Add, Update::Add, Update::TakeBack] {
        let (result, outputs) = criterion.forward(standin, batch, update, &loss, &grad, in_place && update != Update::TakeBack);
        result.unwrap();
        passes.push(bits(&outputs));
        kernels[usize::from(update == Update::TakeBack)].extend(standin.kernels());
    }
    let (result, outputs) = criterion.backward(standin, batch, grad.as_ref().unwrap());
    result.unwrap();
    passes.push(bits(&outputs));
    kernels[0].extend(standin.kernels());
    (Made { passes, state: criterion.state(standin) }, kernels)
}

/// The table of variants written again as one rule per line: the kernel for a batch, and that for taking it back.
fn expected(options: &Options, batch: &CaseBatch) -> [String; 2] {
    let (classes, of, view) = (options.classes, batch.logits.dtype.0, &batch.logits.view);
    let (strides, grad) = (view.strides(), grad_view(batch).unwrap().strides());
    let pixels = view.shape.len() == 3 && view.shape[2] > 1 && strides[2] == 1 && strides[1] != 1 && classes <= 32;
    let dense = strides[1] == 1 && grad[1] == 1 && (view.shape.len() == 2 || view.shape[2] == 1);
    let compact = dense && (view.shape[0] <= 1 || (strides[0] == classes as isize && grad[0] == classes as isize));
    let weighted = options.class_weights.is_some() || batch.sample_weights.is_some() || batch.grad_loss.is_some();
    let few = dense && view.shape[0] <= 2048;
    let usual = of != DType::F64 && !weighted && batch.targets2.is_none() && if classes <= 32 { few || compact || pixels } else { dense };
    let lanes = match classes {
        0..=32 => 8,
        33..=256 => 32,
        257..=1024 => 128,
        1025..=2048 => 256,
        _ => 512,
    };
    let variant = if pixels { "samples".to_owned() } else { format!("rows{lanes}") };
    let dtype = match of {
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::F16 => "f16",
        _ => "bf16",
    };
    let general = format!("ols_{variant}_any_{dtype}");
    let usually = match classes {
        0..=32 if !pixels => if few { "few32" } else { "staged" }.to_owned(),
        _ => variant,
    };
    [if usual { format!("ols_{usually}_{dtype}") } else { general.clone() }, general]
}

/// Ignoring the kernel for the divisor of the mean.
fn are_alone(kernels: &[Vec<String>; 2], wanted: &[String; 2]) -> bool {
    kernels.iter().zip(wanted).all(|(kernels, wanted)| kernels.iter().all(|name| name == wanted || name == "ols_divisor"))
}

fn options(classes: usize, alpha: f64, weighted: bool, reduction: Reduction) -> Options {
    let options = Options::new(classes).alpha(alpha).initial(Initial::Smoothing(0.3)).reduction(reduction);
    if weighted { options.class_weights((0..classes).map(|class| 0.1 + (class % 7) as f64).collect::<Vec<_>>()) } else { options }
}

/// An equivalent batch that needs the general form: its second targets equal the first.
fn with_targets_twice(mut batch: CaseBatch, dtype: DType, lam: f64) -> CaseBatch {
    batch.targets2 = Some(batch.targets.clone());
    batch.lam = Some(Numbers { dtype: Name(dtype), view: View::new(&[]), values: vec![Hex(lam)] });
    batch
}

/// Numbers of classes for each variant, even and odd: with an odd one, every second row of A starts off a 16-byte
/// boundary.
fn classes() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 2..33usize,
        2 => 33..257usize,
        3 => 257..700usize,
        1 => 1023..1026usize,
        1 => 2047..2050usize,
        2 => 2049..2600usize,
        1 => Just(4099usize),
    ]
}

proptest! {
    #![proptest_config(config(60))]

    /// Loss, gradient and state, with threads and blocks in any order, in every layout, and with infinite, NaN and
    /// huge logits.
    #[test]
    fn cuda_paths_give_the_same_bits(
        classes in classes(), alpha in prop_oneof![Just(0.0), Just(0.4), Just(1.0)], weighted in prop::bool::weighted(0.2), reduction in reduction(),
        shape in shape(3), usual in prop::bool::weighted(0.6), seed in 1..1000i64, cached in any::<bool>(),
    ) {
        let standin = Standin::new();
        // Also with so little shared memory that no long row fits.
        standin.set("shared_limit", if cached { 227 * 1024 } else { 2 * 1024 });
        let options = options(classes, alpha, weighted, reduction);
        let shape = Shape { n: shape.n.min(4), inner: shape.inner.map(|inner| inner.min(2)), ..shape };
        let nothing = Shape { layout: shape.layout % 3, weights: None, mixed: None, grad_loss: None, ..shape.clone() };
        let shape = if usual { nothing } else { shape };
        let batch = shape.batch(classes, &options);
        let (plain, kernels) = make(&standin, "plain", &options, &batch, false);
        prop_assert!(are_alone(&kernels, &expected(&options, &batch)), "{kernels:?}");
        for (number, (path, multiprocessors)) in [("hopper", 1), ("", 132)].into_iter().enumerate() {
            standin.set("seed", seed + number as i64);
            standin.set("multiprocessors", multiprocessors);
            let in_place = (seed + number as i64) % 2 == 0 && batch.logits.view.strides.is_none();
            let (made, kernels) = make(&standin, path, &options, &batch, in_place);
            prop_assert!(made == plain, "{path}: other bits; {kernels:?}");
            prop_assert!(are_alone(&kernels, &expected(&options, &batch)), "{path}: {kernels:?}");
        }
    }

    /// The general form gives the bits of the usual form for a batch that the latter can process: with second targets
    /// that equal the first, with weights of 1, and with strided classes.
    #[test]
    fn cuda_usual_kernels_give_the_bits_of_the_general_ones(
        classes in classes(), alpha in prop_oneof![Just(0.0), Just(0.4), Just(1.0)], reduction in reduction(), shape in shape(3),
        lam in prop_oneof![Just(0.0), Just(0.3), Just(1.0)], seed in 0..1000i64,
    ) {
        let standin = Standin::new();
        standin.set("seed", seed);
        let options = options(classes, alpha, false, reduction);
        let dtype = if shape.dtype == DType::F64 { DType::F32 } else { shape.dtype };
        // Adjacent pixels, or rows.
        let inner = if classes <= 32 && seed % 2 == 0 { Some(3) } else { None };
        let nothing = Shape { layout: 0, weights: None, mixed: None, grad_loss: None, ..shape };
        let batch = Shape { dtype, n: 2 + nothing.n.min(3), inner, ..nothing }.batch(classes, &options);
        let (usual, kernels) = make(&standin, "", &options, &batch, false);
        prop_assert!(are_alone(&kernels, &expected(&options, &batch)) && !kernels[0][0].contains("_any_"), "{kernels:?}");
        let twice = with_targets_twice(batch.clone(), DType::F64, lam);
        let mut ones = batch.clone();
        let weights = vec![Hex(1.0); batch.targets.values.len()];
        ones.sample_weights = Some(Numbers { dtype: Name(DType::F32), view: View::new(&batch.targets.view.shape), values: weights });
        ones.grad_loss = Some(Numbers { dtype: Name(DType::F32), view: View::new(&[]), values: vec![Hex(1.0)] });
        let mut apart = batch.clone();
        apart.logits.view = layout(&batch.logits.view.shape, if inner.is_some() { 6 } else { 5 });
        for other in [twice, ones, apart] {
            let (general, kernels) = make(&standin, "", &options, &other, false);
            prop_assert!(general == usual, "other bits; {kernels:?}");
            prop_assert!(are_alone(&kernels, &expected(&options, &other)) && kernels[0][0].contains("_any_"), "{kernels:?}");
        }
    }
}

/// The bits of a row of few classes depend neither on the number of rows nor on the kernel selected by it.
#[test]
fn cuda_few_classes_have_the_same_bits_in_every_kernel() {
    let standin = Standin::new();
    for (classes, dtype) in [(2, DType::F32), (8, DType::F32), (9, DType::Bf16), (21, DType::F32), (32, DType::F32), (32, DType::F16)] {
        let options = options(classes, 0.3, false, Reduction::None);
        let made = |n: usize, general: bool, kernel: &str| {
            let mut batch = Shape { spread: 3.0, ..Shape::rows(dtype, n, 3) }.batch(classes, &options);
            if general {
                batch = with_targets_twice(batch, DType::F64, 0.5);
            }
            let mut criterion = CudaCriterion::new(&options).unwrap();
            standin.kernels();
            let outputs = criterion.forward(&standin, &batch, Update::None, &loss_view(&options, &batch), &grad_view(&batch), false);
            outputs.0.unwrap();
            assert!(standin.kernels().iter().all(|name| name.contains(kernel)), "{n} {kernel}");
            let [loss, grad]: [Vec<u64>; 2] = bits(&outputs.1).try_into().unwrap();
            (loss[..2000].to_vec(), grad[..2000 * classes].to_vec())
        };
        let few = made(2000, false, "few32");
        assert!(made(2049, false, "staged") == few && made(2000, true, "rows8_any") == few, "{classes} {dtype:?}: other bits");
    }
}

/// Bits do not depend on the number of blocks, nor on which block processes a sample.
#[test]
fn cuda_usual_and_general_bits_do_not_depend_on_the_grid() {
    let standin = Standin::new();
    for (at, (classes, n, inner)) in
        [(9, 1300, None), (9, 2700, None), (21, 3, Some(600)), (100, 70, None), (300, 40, None), (1100, 20, None), (2100, 9, None)]
            .into_iter()
            .enumerate()
    {
        for (weighted, dtype) in [(false, DType::F32), (true, DType::Bf16)] {
            let options = options(classes, 0.5, weighted, Reduction::Mean);
            let batch = Shape { inner, ..Shape::rows(dtype, n, at as u64) }.batch(classes, &options);
            let made: Vec<_> = [(1, 0), (2, 5), (3, 6), (16, 7), (132, 0)]
                .into_iter()
                .map(|(multiprocessors, seed)| {
                    standin.set("multiprocessors", multiprocessors);
                    standin.set("seed", seed);
                    let (made, _) = make(&standin, "", &options, &batch, false);
                    (made, standin.get("last_blocks"))
                })
                .collect();
            assert!(made.iter().all(|(it, _)| *it == made[0].0), "{classes}: other bits");
            let grids: Vec<i64> = made.iter().map(|&(_, blocks)| blocks).collect();
            assert!(grids[..3].is_sorted_by(|a, b| a < b) && grids[0] == 2, "{classes} {grids:?}");
        }
    }
}

/// State that starts off a 16-byte boundary, with an odd distance between rows.
#[test]
fn cuda_paths_take_any_alignment() {
    let standin = Standin::new();
    for (classes, gap, offset) in [(300, 0, 1), (301, 1, 0), (300, 1, 1), (1030, 0, 1), (1031, 0, 0), (2050, 1, 0), (2051, 0, 1)] {
        let options = options(classes, 0.5, false, Reduction::Mean);
        let shape = Shape::rows(DType::F32, 5, 4);
        let batch = shape.batch(classes, &options);
        let found: Vec<_> = ["plain", "hopper"]
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
        assert!(found[1] == found[0], "{classes} {gap} {offset}");
    }
}

/// A row of many chunks, with and without enough shared memory for it.
#[test]
fn cuda_very_long_rows_have_the_same_bits_in_every_way() {
    very_long_rows(20_001, DType::F32, "f32");
    very_long_rows(20_003, DType::Bf16, "bf16");
}

fn very_long_rows(classes: usize, dtype: DType, name: &str) {
    let standin = Standin::new();
    standin.set("spoils", 0);
    let options = Options::new(classes).alpha(1.0).reduction(Reduction::None);
    let shape = Shape { special: vec![(classes + 7, 0)], ..Shape::rows(dtype, 3, 9) };
    let mut batch = shape.batch(classes, &options);
    // Far enough above the others that it is the only maximum, even in 16 bits.
    let right = batch.targets.values[0] as usize;
    batch.logits.set.iter_mut().filter(|(index, _)| *index == right).for_each(|(_, value)| *value = Hex(2.0 * value.0));
    let (logits, targets) = (batch.rows().logits, batch.targets.values.clone());
    let [usual, general, stream] = ["rows512_", "rows512_any_", "stream512_"].map(|kernel| format!("ols_{kernel}{name}"));
    let mut first = None;
    for (number, (path, kernel, shared)) in
        [("plain", &usual, 48), ("plain", &usual, 227), ("hopper", &usual, 48), ("", &general, 48), ("", &stream, 227)]
            .into_iter()
            .enumerate()
    {
        standin.path(path);
        standin.set("seed", number as i64);
        standin.set("multiprocessors", 1 + number as i64 % 2);
        standin.set("shared_limit", shared * 1024);
        let mut batch = batch.clone();
        if kernel.contains("any") {
            batch = with_targets_twice(batch, DType::F32, 0.5);
        }
        // Adopted memory, so that it is only touched where a single sample is added: the system provides it as zeros.
        let (soft_labels, sums) = (DeviceMemory::new(classes * classes * 4), DeviceMemory::new(classes * classes * 8));
        let mut raw = raw_options(&options);
        raw.device_type = OLS_DEVICE_CUDA;
        raw.flags = OLS_OPTIONS_ADOPT_STATE;
        raw.soft_labels = tensor(soft_labels.pointer(), DType::F32, &View::new(&[classes, classes]), 0);
        raw.sums = tensor(sums.pointer(), DType::I64, &View::new(&[classes, classes]), 0);
        let mut criterion = CudaCriterion::from_raw(&raw, &options).unwrap();
        standin.kernels();
        let (result, outputs) =
            criterion.forward(&standin, &batch, Update::Add, &loss_view(&options, &batch), &grad_view(&batch), number == 2);
        result.unwrap();
        assert_eq!(standin.kernels(), [kernel.as_str()]);
        let (buffer, view) = outputs.loss.as_ref().unwrap();
        for (row, (&loss, &target)) in buffer.values(view).iter().zip(&targets).enumerate() {
            let logits = &logits[row * classes..][..classes];
            let exact = logits.iter().map(|z| z.exp()).sum::<f64>().ln() - logits[target as usize];
            assert!((loss - exact).abs() <= 2e-6 * exact.max(1.0), "{kernel}: {loss} differs from {exact}");
        }
        let added: Vec<Vec<u8>> =
            targets.iter().map(|&target| sums.bytes()[target as usize * classes * 8..][..classes * 8].to_vec()).collect();
        assert!(added.iter().flatten().any(|&byte| byte != 0), "{classes} {dtype:?} {kernel}");
        let found = (bits(&outputs), added);
        assert!(*first.get_or_insert_with(|| found.clone()) == found, "{path} {kernel} {shared}: other bits");
    }
}

/// A class that fills up within a batch accepts as many samples as on the plain path.
#[test]
fn cuda_paths_know_full_classes() {
    let standin = Standin::new();
    for (classes, n) in [(300, 6), (300, 1024), (1100, 6), (2100, 6)] {
        let options = options(classes, 0.5, false, Reduction::Sum);
        let shape = Shape::rows(DType::Bf16, n, 1);
        let mut batch = shape.batch(classes, &options);
        batch.targets.values.fill(1);
        for (index, value) in &mut batch.logits.set {
            *value = Hex(if *index % classes == 1 { 9.0 } else { 0.0 });
        }
        for path in ["", "plain"] {
            standin.path(path);
            let mut criterion = CudaCriterion::new(&options).unwrap();
            // SAFETY: memory of the stand-in, which is host memory; nothing runs.
            unsafe { criterion.views()[2].data.cast::<i64>().add(1).write((1 << 32) - 2) };
            criterion.enqueue(&BatchOnDevice::new(&batch), Update::Add, None, None).unwrap();
            let state = criterion.state(&standin);
            assert_eq!(state.counts[1], 1 << 32, "{path}");
            let row: i64 = state.sums[classes..2 * classes].iter().sum();
            assert!((row - (2 << 30)).abs() < 2 * classes as i64, "{path}: two samples were added: {row}");
        }
    }
}

/// A captured step can be replayed even if its rows take a different amount of shared memory than the previous ones,
/// for which the occupancy has to be queried during the capture.
#[test]
fn cuda_paths_can_be_captured() {
    let standin = Standin::new();
    for path in ["", "plain"] {
        standin.path(path);
        for classes in [2100, 2200] {
            let options = options(classes, 0.5, false, Reduction::Mean);
            let shape = Shape::rows(DType::F32, 3, 2);
            let batch = BatchOnDevice::new(&shape.batch(classes, &options));
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
}

/// A grid has as many blocks as are resident at once: two on each of three multiprocessors. The occupancy is queried
/// when the kernels are loaded and later only for long rows in shared memory, once per length.
#[test]
fn cuda_grids_are_what_the_device_takes_at_once() {
    let standin = Standin::new();
    let mut criteria = Vec::new();
    let mut launch = |classes: usize, n: usize, dtype: DType| {
        let options = Options::new(classes);
        let mut criterion = CudaCriterion::new(&options).unwrap();
        let asked = standin.get("occupancies");
        criterion.enqueue(&BatchOnDevice::new(&Shape::rows(dtype, n, 2).batch(classes, &options)), Update::Add, None, None).unwrap();
        standin.wait();
        // Keep the kernels loaded.
        criteria.push(criterion);
        (standin.get("last_threads"), standin.get("last_blocks"), standin.get("occupancies") - asked)
    };
    for (classes, n, dtype, expected) in [
        (10, 4, DType::F32, (128, 1, 0)),
        (10, 5, DType::Bf16, (128, 2, 0)),
        (10, 2048, DType::F32, (128, 6, 0)),
        (10, 2049, DType::F32, (256, 6, 0)),
        (10, 128, DType::F64, (256, 4, 0)),
        (300, 1024, DType::F32, (128, 6, 0)),
        (600, 1024, DType::F32, (128, 6, 0)),
        (100, 9, DType::F32, (128, 3, 0)),
        (100, 90, DType::F32, (128, 6, 0)),
        (300, 5, DType::F16, (128, 5, 0)),
        (300, 7, DType::F16, (128, 6, 0)),
        (1500, 7, DType::F32, (256, 6, 0)),
        (2100, 1, DType::F32, (512, 1, 0)),
        (2100, 7, DType::F32, (512, 6, 1)),
        (2100, 2, DType::F32, (512, 2, 0)),
        (2200, 7, DType::F32, (512, 6, 1)),
        (2200, 8, DType::F32, (512, 6, 0)),
    ] {
        assert_eq!(launch(classes, n, dtype), expected, "{classes} {n} {dtype:?}");
    }
}

/// Selecting kernels by name either works or fails with an error, and exactly one module is loaded.
#[test]
fn cuda_paths_are_those_that_are_asked_for() {
    let standin = Standin::new();
    let options = Options::new(600);
    let launched = |path: &str, classes: usize, dtype: DType, weighted: bool| {
        standin.path(path);
        let options = self::options(classes, 0.5, weighted, Reduction::Mean);
        let batch = BatchOnDevice::new(&Shape::rows(dtype, 2, 2).batch(classes, &options));
        let modules = standin.get("modules");
        let mut criterion = CudaCriterion::new(&options).unwrap();
        assert_eq!(standin.get("modules"), modules + 1);
        standin.kernels();
        criterion.enqueue(&batch, Update::Add, None, None).unwrap();
        (standin.kernels().concat(), standin.get("last_module"))
    };
    for (path, classes, dtype, weighted, kernel, module) in [
        ("plain", 600, DType::F32, false, "ols_rows128_f32", 75),
        ("plain", 2100, DType::F16, true, "ols_rows512_any_f16", 75),
        ("", 100, DType::F32, false, "ols_rows32_f32", 90),
        ("", 2100, DType::F32, false, "ols_rows512_f32", 90),
        ("", 1025, DType::F64, false, "ols_rows256_any_f64", 90),
        ("hopper", 300, DType::F32, false, "ols_rows128_f32", 90),
        ("hopper", 300, DType::F16, true, "ols_rows128_any_f16", 90),
        ("hopper", 1100, DType::F32, false, "ols_rows256_f32", 90),
    ] {
        assert_eq!(launched(path, classes, dtype, weighted), (kernel.to_owned(), module), "{path} {classes} {dtype:?}");
    }
    // Criteria share a loaded module, also if it was selected in another way.
    standin.path("");
    let modules = standin.get("modules");
    let first = CudaCriterion::new(&options).unwrap();
    for (path, more) in [("", 1), ("hopper", 1), ("plain", 2)] {
        standin.path(path);
        CudaCriterion::new(&options).unwrap();
        assert_eq!(standin.get("modules"), modules + more, "{path}");
    }
    drop(first);
    let refused = |status: ols_status_t, text: &str| {
        let failure = CudaCriterion::new(&options).err().unwrap();
        assert!(failure.status == status && failure.text.contains(text), "{failure:?}");
        assert_eq!(standin.get("references"), 0);
    };
    standin.path("fast");
    refused(ols_status_t::OLS_STATUS_INVALID_ARGUMENT, "OLS_CUDA_PATH = \"fast\" is neither plain nor hopper");
    standin.set("capability", 89);
    standin.path("hopper");
    refused(ols_status_t::OLS_STATUS_UNSUPPORTED, "compute capability 8.9, but OLS_CUDA_PATH = hopper requires 9.0");
    for path in ["", "plain"] {
        assert_eq!(launched(path, 300, DType::F32, false), ("ols_rows128_f32".to_owned(), 80), "{path}");
    }
    standin.set("capability", 120);
    assert_eq!(launched("hopper", 300, DType::F32, false), ("ols_rows128_f32".to_owned(), 90));
}
