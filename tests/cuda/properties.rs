//! Random batches and all boundary sizes, compared with the executable specification and with each other: the same
//! bits in any schedule.

use ols::reference::Reference;
use ols::{DType, Mode, Options, Reduction, Update};
use proptest::prelude::*;

use crate::device::{BatchOnDevice, CudaCriterion};
use crate::standin::Standin;
use crate::support::hex::Hex;
use crate::support::life::*;
use crate::support::model::{CaseBatch, CaseReport, Logits, Name, Numbers, Targets, View, splitmix64};
use crate::support::runner::{Outputs, State};

fn pass(standin: &Standin, criterion: &mut CudaCriterion, batch: &CaseBatch, update: Update) -> Outputs {
    let (loss, grad) = (loss_view(&criterion.options, batch), grad_view(batch));
    let (result, outputs) = criterion.forward(standin, batch, update, &loss, &grad, false);
    result.expect("the batch is valid");
    outputs
}

proptest! {
    #![proptest_config(config(150))]

    /// Everything against the reference, over two epochs of a few batches, with the threads in a new order each time.
    #[test]
    fn cuda_does_what_the_reference_does(life in life(3, 2), seed in 0..1000i64, evaluation in any::<bool>()) {
        let standin = Standin::new();
        standin.set("seed", seed);
        let (options, batches) = life.parts();
        let mut reference = Reference::new(&options).unwrap();
        let mut criterion = CudaCriterion::new(&options).unwrap();
        for epoch in 0..2 {
            let mode = if epoch == 1 && evaluation { Mode::Eval } else { Mode::Train };
            reference.mode = mode;
            criterion.set_mode(mode);
            for batch in &batches {
                for update in [Update::Add, Update::None, Update::Add, Update::TakeBack] {
                    // Taking back works in both modes, but in evaluation mode nothing has been added.
                    if update == Update::TakeBack && mode == Mode::Eval {
                        continue;
                    }
                    let outputs = pass(&standin, &mut criterion, batch, update);
                    check_outputs(&mut reference, batch, update, &outputs)?;
                }
            }
            check_state(&reference, &criterion.state(&standin), 2f64.powi(-20))?;
            // Continue with identical statistics.
            reference.sums = criterion.state(&standin).sums;
            let expected = reference.next_epoch();
            criterion.next_epoch().unwrap();
            let report = criterion.report().unwrap();
            prop_assert_eq!(CaseReport::from(report), CaseReport::from(expected));
            let state = criterion.state(&standin);
            prop_assert_eq!(&state.soft_labels, &reference.soft_labels);
            prop_assert!(state.sums.iter().all(|&sum| sum == 0) && state.counts.iter().all(|&count| count == 0));
        }
    }

    /// Given probabilities are accumulated like in the reference, to the unit.
    #[test]
    fn cuda_counts_given_probabilities_exactly(life in life(2, 0), seed in 0..1000i64) {
        let standin = Standin::new();
        standin.set("seed", seed);
        let (options, batches) = life.parts();
        let mut reference = Reference::new(&options).unwrap();
        let mut criterion = CudaCriterion::new(&options).unwrap();
        for (number, mut batch) in batches.into_iter().enumerate() {
            for (index, value) in &mut batch.logits.set {
                let view = View::new(&[1]);
                let p = if *index % 3 == 0 { ((*index % 64) as f64 + 0.5) * 2f64.powi(-30) } else { unit(number as u64, *index) };
                *value = Hex(crate::support::buffer::Buffer::numbers(batch.logits.dtype.0, &view, &[p]).get(0));
            }
            batch.grad_loss = None;
            let rows = batch.rows();
            for update in [Update::Add, Update::None, Update::Add, Update::TakeBack] {
                reference.accumulate(&rows.samples(update)).unwrap();
                criterion.accumulate(&standin, &batch, update).unwrap();
                let state = criterion.state(&standin);
                prop_assert_eq!(&state.sums, &reference.sums);
                prop_assert_eq!(&state.counts, &reference.counts);
            }
        }
    }

    /// Loss, gradient and state have the same bits for any order of threads and blocks, in every layout, in place,
    /// and from backward.
    #[test]
    fn cuda_gives_the_same_bits_in_every_way(life in life(1, 2), seed in 1..1000i64) {
        let standin = Standin::new();
        let (options, batches) = life.parts();
        let batch = &batches[0];
        let run = |batch: &CaseBatch, seed: i64, in_place: bool| {
            standin.set("seed", seed);
            let mut criterion = CudaCriterion::new(&options).unwrap();
            let (loss, grad) = (loss_view(&options, batch), grad_view(batch));
            let (result, outputs) = criterion.forward(&standin, batch, Update::Add, &loss, &grad, in_place);
            result.unwrap();
            let (result, backward) = criterion.backward(&standin, batch, grad.as_ref().unwrap());
            result.unwrap();
            (bits(&outputs), bits(&backward), criterion.state(&standin))
        };
        let first = run(batch, 0, false);
        prop_assert_eq!(&first.0[1], &first.1[0]);
        prop_assert_eq!(&run(batch, seed, false), &first);
        prop_assert_eq!(&run(batch, seed + 1, true), &first);
        let shape = &batch.logits.view.shape;
        for number in [2, 3 + seed as u8 % 5] {
            let mut other = batch.clone();
            other.logits.view = layout(shape, number);
            prop_assert_eq!(&run(&other, seed, number % 2 == 1 && number < 6), &first);
        }
    }
}

/// `n` samples of `classes` classes with f32 values, with adjacent inner samples if `inner` is given.
fn plain(dtype: DType, n: usize, classes: usize, inner: Option<usize>, seed: u64) -> CaseBatch {
    let shape: Vec<usize> = [n, classes].into_iter().chain(inner).collect();
    let targets: Vec<usize> = [n].into_iter().chain(inner).collect();
    let samples = n * inner.unwrap_or(1);
    let values: Vec<i64> = (0..samples).map(|sample| (splitmix64(seed, (sample / 7) as u64) % classes as u64) as i64).collect();
    let width = inner.unwrap_or(1);
    // Two out of three are classified correctly: their logit is raised above the others.
    let raised = (0..samples)
        .filter(|sample| sample % 3 != 1)
        .map(|sample| (sample / width * classes + values[sample] as usize) * width + sample % width);
    CaseBatch {
        logits: Logits {
            dtype: Name(dtype),
            view: View::new(&shape),
            seed,
            exponent: -4,
            absolute: false,
            raised: raised.collect(),
            set: vec![],
        },
        targets: Targets { dtype: Name(DType::I64), view: View::new(&targets), values },
        target_offset: 0,
        sample_weights: None,
        targets2: None,
        lam: None,
        grad_loss: None,
    }
}

/// The same with second targets, which need the general form.
fn mixed(mut batch: CaseBatch) -> CaseBatch {
    let mut second = batch.targets.clone();
    second.values.reverse();
    batch.targets2 = Some(second);
    batch.lam = Some(Numbers { dtype: Name(DType::F32), view: View::new(&[]), values: vec![Hex(0.75)] });
    batch
}

fn compare(standin: &Standin, options: &Options, batch: &CaseBatch) -> State {
    let mut reference = Reference::new(options).unwrap();
    let mut criterion = CudaCriterion::new(options).unwrap();
    let outputs = pass(standin, &mut criterion, batch, Update::Add);
    check_outputs(&mut reference, batch, Update::Add, &outputs).unwrap();
    let state = criterion.state(standin);
    check_state(&reference, &state, 2f64.powi(-20)).unwrap();
    state
}

/// Both sides of every limit of the table of variants, in every dtype.
#[test]
fn cuda_is_right_at_every_boundary_size() {
    let standin = Standin::new();
    let mut launched = Vec::new();
    let sizes = [2, 3, 7, 8, 9, 31, 32, 33, 127, 128, 255, 256, 257, 512, 1023, 1024, 1025, 2047, 2048, 2049, 3001];
    for (at, classes) in sizes.into_iter().enumerate() {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
            standin.set("seed", at as i64);
            let options = Options::new(classes).reduction([Reduction::Mean, Reduction::Sum, Reduction::None][at % 3]);
            let few = if classes > 1000 { 2 } else { 33 };
            for n in if classes > 1000 { vec![2] } else { vec![1, few] } {
                compare(&standin, &options, &plain(dtype, n, classes, None, 11));
            }
            compare(&standin, &options, &mixed(plain(dtype, few, classes, None, 13)));
            if classes <= 33 {
                let pixels = plain(dtype, 3, classes, Some(37), 12);
                compare(&standin, &options, &pixels);
                compare(&standin, &options, &mixed(pixels));
            }
            launched.extend(standin.kernels());
        }
    }
    // Many rows of few classes.
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        compare(&standin, &Options::new(2), &plain(dtype, 2049, 2, None, 14));
    }
    launched.extend(standin.kernels());
    for (variants, dtypes) in [
        (&["few32", "staged", "samples", "rows32", "rows128", "rows256", "rows512"][..], &["f32", "f16", "bf16"][..]),
        (&["rows8", "samples", "rows32", "rows128", "rows256", "rows512"], &["any_f32", "any_f64", "any_f16", "any_bf16"]),
    ] {
        for (variant, dtype) in variants.iter().flat_map(|variant| dtypes.iter().map(move |dtype| (variant, dtype))) {
            assert!(launched.contains(&format!("ols_{variant}_{dtype}")), "{variant} {dtype} was not launched");
        }
    }
}

/// More samples than one block processes, than a grid processes at once, than a block computes the divisor for, and
/// than have their losses and blocks in a single word; with the usual and the general form.
#[test]
fn cuda_is_right_for_many_samples() {
    let standin = Standin::new();
    for (n, classes, inner, weighted) in [
        (127, 9, None, false),
        (128, 9, None, false),
        (129, 9, None, false),
        (128, 9, None, true),
        (129, 32, None, true),
        (1024, 3, None, true),
        (1025, 3, None, true),
        (1025, 3, None, false),
        (4095, 33, None, false),
        (4100, 33, None, true),
        (2048, 9, None, false),
        (2049, 9, None, false),
        (4100, 9, None, false),
        (16_384, 2, None, false),
        (16_385, 2, None, false),
        (4100, 9, None, true),
        (4100, 257, None, false),
        (4100, 257, None, true),
        (2, 3, Some(65_600), true),
        (2, 3, Some(65_600), false),
    ] {
        let batch = plain(DType::F32, n, classes, inner, 5);
        let options = Options::new(classes);
        let options =
            if weighted { options.class_weights((0..classes).map(|class| 0.5 + class as f64).collect::<Vec<_>>()) } else { options };
        standin.kernels();
        let state = compare(&standin, &options, &batch);
        // With blocks and threads in another order.
        standin.set("seed", 3);
        let mut again = CudaCriterion::new(&options).unwrap();
        pass(&standin, &mut again, &batch, Update::Add);
        assert!(again.state(&standin) == state);
        standin.set("seed", 0);
        // Without weights, the blocks count the targets together.
        let divisor = weighted && n * inner.unwrap_or(1) > 1024;
        let kernels = standin.kernels();
        assert_eq!(kernels.contains(&"ols_divisor".to_owned()), divisor, "{n}");
        assert_eq!(kernels.contains(&"ols_shared32_f32".to_owned()), !weighted && classes == 257, "{kernels:?}");
        assert_eq!(kernels.iter().any(|name| name.contains("_any_")), weighted, "{n} {kernels:?}");
    }
}

/// Scaling all weights does not change the mean, whatever the factor.
#[test]
fn cuda_tiny_and_huge_weights_are_weights() {
    let standin = Standin::new();
    for (classes, dtype) in [(3, DType::F32), (40, DType::F32), (300, DType::F64), (1100, DType::F32), (2100, DType::Bf16)] {
        let run = |class_weight: f64, sample_weight: f64| {
            let weights: Vec<f64> = (0..classes).map(|class| class_weight * (1 + class % 2) as f64).collect();
            let mut batch = plain(dtype, 6, classes, None, 4);
            let weight = |n: usize| Hex(sample_weight * (1 + n % 2) as f64);
            batch.sample_weights = Some(Numbers { dtype: Name(DType::F64), view: View::new(&[6]), values: (0..6).map(weight).collect() });
            let mut criterion = CudaCriterion::new(&Options::new(classes).class_weights(weights)).unwrap();
            let outputs = pass(&standin, &mut criterion, &batch, Update::None);
            let [loss, grad] = [&outputs.loss, &outputs.grad].map(|it| it.as_ref().map(|(buffer, view)| buffer.values(view)).unwrap());
            (loss[0], grad)
        };
        let (loss, grad) = run(1.0, 1.0);
        for (class_weight, sample_weight) in
            [(1e-40, 1.0), (1e-46, 1.0), (1e39, 1.0), (1.0, 1e-6), (1.0, 1e-310), (1.0, 1e200), (1e-150, 1e-100)]
        {
            let (scaled_loss, scaled_grad) = run(class_weight, sample_weight);
            assert!((scaled_loss - loss).abs() <= 2e-6, "{classes} {class_weight:e} {sample_weight:e}: {scaled_loss} {loss}");
            for (scaled, plain) in scaled_grad.iter().zip(&grad) {
                assert!((scaled - plain).abs() <= 1e-6, "{classes} {class_weight:e} {sample_weight:e}: {scaled} {plain}");
            }
        }
    }
}

/// Losses of any size are added correctly, in every kernel and grid: losses too large for the ordinary sum, infinite
/// losses, and small losses next to large ones from other blocks.
#[test]
fn cuda_adds_up_losses_of_any_size() {
    let standin = Standin::new();
    for (classes, n) in [(9, 7), (9, 2100), (40, 70), (300, 5), (300, 1100), (1100, 3), (2100, 3)] {
        // Powers of two, which every dtype represents exactly.
        for (dtype, large) in [(DType::F32, 124), (DType::Bf16, 100), (DType::F64, 1000)] {
            let large = 2f64.powi(large);
            for (at, sizes) in
                [[2f64.powi(20), 0.0], [2f64.powi(33), 2f64.powi(25)], [large, 1.0], [large, f64::INFINITY]].into_iter().enumerate()
            {
                let mut batch = plain(dtype, n, classes, None, at as u64);
                for (row, size) in [(0, sizes[0]), (n - 1, sizes[1])] {
                    // Another class lies this far above the target's, or the target is masked.
                    let target = batch.targets.values[row] as usize;
                    let (class, z) = if size.is_finite() { ((target + 1) % classes, size) } else { (target, -size) };
                    batch.logits.set.push((row * classes + class, Hex(z)));
                }
                for reduction in [Reduction::Mean, Reduction::Sum] {
                    standin.set("seed", at as i64);
                    compare(&standin, &Options::new(classes).reduction(reduction), &batch);
                }
                // Nothing is left over for the next batch.
                let options = Options::new(classes);
                let mut criterion = CudaCriterion::new(&options).unwrap();
                let usual = plain(dtype, n, classes, None, 5);
                let alone = bits(&pass(&standin, &mut criterion, &usual, Update::None));
                pass(&standin, &mut criterion, &batch, Update::None);
                assert!(bits(&pass(&standin, &mut criterion, &usual, Update::None)) == alone, "{classes} {dtype:?}");
            }
        }
    }
}

/// A long row has the same bits whether or not it fits into shared memory.
#[test]
fn cuda_long_rows_do_not_depend_on_shared_memory() {
    let results: Vec<_> = [227 * 1024, 8 * 1024]
        .into_iter()
        .map(|limit| {
            let standin = Standin::new();
            standin.set("shared_limit", limit);
            let options = Options::new(3001);
            let mut criterion = CudaCriterion::new(&options).unwrap();
            let outputs = pass(&standin, &mut criterion, &plain(DType::F32, 3, 3001, None, 2), Update::Add);
            (bits(&outputs), criterion.state(&standin))
        })
        .collect();
    assert!(results[0] == results[1]);
}

/// error of loss| <= 2e-6 * max(1, loss) and |error of gradient| <= 4e-7 in f32, 1e-13 in f64, for long rows with one peak.
#[test]
fn cuda_long_and_peaked_rows_are_accurate() {
    let standin = Standin::new();
    // 2048 classes are the longest row held in registers, 3001 classes lie in shared memory. Much longer rows are
    // checked on GPUs, by cuda/check.
    for classes in [2048, 1024, 256, 32, 3001] {
        for dtype in [DType::F32, DType::F64] {
            for (height, peak, target) in [(17.0, 0, 0), (16.635, 5, 3), (17.0, classes - 1, classes - 1), (30.0, 9, 7), (8.25, 10, 10)] {
                let mut batch = plain(dtype, 1, classes, None, 3);
                let value = f64::from(height as f32);
                batch.logits.set = (0..classes).map(|k| (k, Hex(if k == peak { value } else { 0.0 }))).collect();
                batch.targets.values = vec![target as i64];
                compare(&standin, &Options::new(classes).reduction(Reduction::None), &batch);
            }
        }
    }
}

/// exp on the device has the bits of exp on the CPU, down to where both give 0. With alpha = 1 and all logits but the
/// target's far below, the sum of exponentials is 1, so an entry of the gradient is e itself.
#[test]
fn cuda_exp_is_that_of_the_cpu() {
    let standin = Standin::new();
    for (dtype, [nearest, lowest_normal, zero]) in [(DType::F32, [-26.0, -87.3366, -88.04]), (DType::F64, [-46.0, -708.3965, -709.2])] {
        const K: usize = 2048;
        const ROWS: usize = 24;
        let mut batch = plain(dtype, ROWS, K, None, 1);
        batch.targets.values.fill(0);
        let argument = |row: usize, k: usize| match (row, k) {
            (_, 0) => 0.0,
            // Rows over the whole range, and rows around its end, where results become subnormal.
            (0..4, _) => nearest + (zero - nearest) * unit(3, row * K + k),
            _ => lowest_normal + 0.01 + (zero - lowest_normal - 0.02) * unit(4, row * K + k),
        };
        batch.logits.raised.clear();
        batch.logits.set = (0..ROWS * K).map(|at| (at, Hex(argument(at / K, at % K)))).collect();
        let options = Options::new(K).alpha(1.0).reduction(Reduction::Sum);
        let mut cpu = ols::Criterion::new(&options).unwrap();
        let (result, expected) = crate::support::runner::forward(&mut cpu, &batch, Update::None, &None, &grad_view(&batch), false);
        result.unwrap();
        let mut cuda = CudaCriterion::new(&options).unwrap();
        let (result, found) = cuda.forward(&standin, &batch, Update::None, &None, &grad_view(&batch), false);
        result.unwrap();
        let values = |outputs: Outputs| outputs.grad.map(|(buffer, view)| buffer.values(&view)).unwrap();
        let (expected, found) = (values(expected), values(found));
        let differ = (0..ROWS * K).filter(|at| at % K != 0 && expected[*at] != found[*at]).count();
        assert_eq!(differ, 0, "{dtype:?}");
        let smallest_normal = if dtype == DType::F32 { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE };
        assert!(found.iter().any(|&e| e > 0.0 && e < smallest_normal) && found.contains(&0.0), "{dtype:?}: the range has its end in it");
    }
}

/// The CPU and the device agree on S within 2^-29 + 2^-22 S for the same batches.
#[test]
fn cuda_and_cpu_learn_the_same_soft_labels() {
    let standin = Standin::new();
    for classes in [10, 100, 300] {
        let options = Options::new(classes);
        let mut cpu = ols::Criterion::new(&options).unwrap();
        let mut cuda = CudaCriterion::new(&options).unwrap();
        for seed in 0..3 {
            let batch = plain(DType::F32, 64, classes, None, seed);
            let (result, _) = crate::support::runner::forward(&mut cpu, &batch, Update::Add, &None, &None, false);
            result.unwrap();
            let on_device = BatchOnDevice::new(&batch);
            cuda.enqueue(&on_device, Update::Add, None, None).unwrap();
            standin.wait();
        }
        assert_eq!(cuda.state(&standin).counts, cpu.counts());
        cpu.next_epoch().unwrap();
        cuda.next_epoch().unwrap();
        let state = cuda.state(&standin);
        for class in 0..classes {
            for (k, &expected) in cpu.soft_label(class).iter().enumerate() {
                let (found, expected) = (f64::from(state.soft_labels[class * classes + k]), f64::from(expected));
                assert!(
                    (found - expected).abs() <= 2f64.powi(-29) + 2f64.powi(-22) * expected,
                    "S[{class}, {k}] = {found:e}, {expected:e}"
                );
            }
        }
    }
}
