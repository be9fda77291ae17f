//! What must hold for every batch: the library against the executable specification, and against itself.
//!
//! The cases are the same on every run. `PROPTEST_RNG_SEED=17` chooses others, `PROPTEST_CASES=10000` more.

mod support;

use ols::reference::Reference;
use ols::{Batch, Criterion, DType, EmptyClass, ErrorKind, Initial, Mode, Options, Reduction, TensorMut, TensorRef, Update, bf16, f16};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use support::buffer::Buffer;
use support::hex::Hex;
use support::model::{CaseBatch, CaseReport, Logits, Name, Numbers, Targets, View, splitmix64};
use support::oracle::{Tolerance, gradient_error, loss_error, loss_tolerance, rounding, scale};
use support::runner::{self, Outputs, State, Tensors, forward};

/// `cases` from a fixed seed, where the environment says nothing else.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1970);
    }
    config
}

/// A number in [0, 1) for (seed, index).
fn unit(seed: u64, index: usize) -> f64 {
    (splitmix64(seed, index as u64) >> 11) as f64 / (1u64 << 53) as f64
}

/// What a batch is made of; small numbers, so that a failure shrinks to something readable.
#[derive(Clone, Debug)]
struct Shape {
    dtype: DType,
    n: usize,
    inner: Option<usize>,
    seed: u64,
    /// Logits lie in [-spread, spread).
    spread: f64,
    layout: u8,
    target_dtype: DType,
    offset: i64,
    ignored: bool,
    weights: Option<DType>,
    mixed: Option<(DType, bool)>,
    grad_loss: Option<DType>,
    special: Vec<(usize, u8)>,
}

fn logit_dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64), Just(DType::F16), Just(DType::Bf16)]
}

fn weight_dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64)]
}

fn shape(specials: usize) -> impl Strategy<Value = Shape> {
    let sizes = (
        logit_dtype(),
        0..7usize,
        prop::option::of(1..5usize),
        0..1000u64,
        prop_oneof![Just(1.0), Just(8.0), Just(60.0), Just(2000.0)],
        0..8u8,
    );
    let targets = (prop_oneof![Just(DType::I64), Just(DType::I32), Just(DType::U8)], prop_oneof![Just(0i64), Just(1)], any::<bool>());
    let more = (
        prop::option::of(weight_dtype()),
        prop::option::of((weight_dtype(), any::<bool>())),
        prop::option::of(weight_dtype()),
        prop::collection::vec((0..500usize, 0..6u8), 0..=specials),
    );
    (sizes, targets, more).prop_map(
        |((dtype, n, inner, seed, spread, layout), (target_dtype, offset, ignored), (weights, mixed, grad_loss, special))| Shape {
            dtype,
            n,
            inner,
            seed,
            spread,
            layout,
            target_dtype,
            offset,
            ignored,
            weights,
            mixed,
            grad_loss,
            special,
        },
    )
}

/// A view of `shape` that is not row-major (but for one of `layout`).
fn layout(shape: &[usize], layout: u8) -> View {
    let s: Vec<isize> = shape.iter().map(|&size| size as isize).collect();
    if shape.contains(&0) {
        return View::new(shape);
    }
    match (s[..].to_vec().as_slice(), layout) {
        (_, 0 | 1) => View::new(shape),
        (&[_, k], 2) => View::strided(shape, &[k + 3, 1]).padded(1, 2),
        (&[n, _], 3) => View::strided(shape, &[1, n]),
        (&[_, k], 4) => View::strided(shape, &[-k, -1]).padded(2, 1),
        (&[_, k], _) => View::strided(shape, &[2 * k + 1, 2]),
        (&[_, k, i], 2) => View::strided(shape, &[(k + 1) * (i + 2), i + 2, 1]).padded(1, 1),
        (&[_, k, i], 3) => View::strided(shape, &[k * i, 1, k]),
        (&[n, _, i], 4) => View::strided(shape, &[i, n * i, 1]),
        (&[n, k, _], 5) => View::strided(shape, &[1, n, n * k]),
        (&[_, k, i], 6) => View::strided(shape, &[-k * i, -i, -1]),
        (&[_, k, i], _) => View::strided(shape, &[k * i, 1, -k]).padded(1, 0),
        _ => View::new(shape),
    }
}

impl Shape {
    fn batch(&self, classes: usize, options: &Options) -> CaseBatch {
        let (n, inner, seed) = (self.n, self.inner.unwrap_or(1), self.seed);
        let samples = n * inner;
        let full: Vec<usize> = [n, classes].into_iter().chain(self.inner).collect();
        let targets: Vec<usize> = [n].into_iter().chain(self.inner).collect();
        let per_sample = View::new(&targets);
        let class = |which: u64, sample: usize| (splitmix64(seed + which, sample as u64) % classes as u64) as i64;
        let target = |which: u64, sample: usize| {
            let ignored = self.ignored && self.target_dtype != DType::U8 && unit(seed + which + 1, sample) < 0.2;
            if ignored { options.ignore_index } else { class(which, sample) + self.offset }
        };
        let target_list = |which: u64| Targets {
            dtype: Name(if classes > 255 && self.target_dtype == DType::U8 { DType::I32 } else { self.target_dtype }),
            view: layout(&targets, 4 * (seed % 2) as u8),
            values: (0..samples).map(|sample| target(which, sample)).collect(),
        };
        let numbers = |dtype: DType, make: &dyn Fn(usize) -> f64| Numbers {
            dtype: Name(dtype),
            view: per_sample.clone(),
            values: (0..samples).map(|sample| Hex(make(sample))).collect(),
        };

        // Two of three samples are classified right.
        let mut logits: Vec<f64> = (0..samples * classes).map(|i| (2.0 * unit(seed, i) - 1.0) * self.spread).collect();
        for sample in (0..samples).filter(|sample| sample % 3 != 2) {
            logits[(sample / inner * classes + class(1, sample) as usize) * inner + sample % inner] = self.spread;
        }
        for &(place, kind) in &self.special {
            if !logits.is_empty() {
                let place = place % logits.len();
                logits[place] = match kind {
                    0 | 1 => f64::NEG_INFINITY,
                    2 => f64::INFINITY,
                    3 => f64::NAN,
                    4 => -0.0,
                    _ => 1e4,
                };
            }
        }
        let view = layout(&full, self.layout);
        // As the dtype stores them.
        let logits = Buffer::numbers(self.dtype, &View::new(&full), &logits).values(&View::new(&full));
        CaseBatch {
            logits: Logits {
                dtype: Name(self.dtype),
                view,
                seed: 0,
                exponent: 0,
                absolute: false,
                raised: vec![],
                set: logits.into_iter().map(Hex).enumerate().collect(),
            },
            targets: target_list(1),
            target_offset: self.offset,
            sample_weights: self.weights.map(|dtype| numbers(dtype, &|sample| [1.0, 0.3, 0.0, 2.0, 0.7][(sample + seed as usize) % 5])),
            targets2: self.mixed.map(|_| target_list(3)),
            lam: self.mixed.map(|(dtype, each)| {
                let lam = |sample| [0.5, 0.3, 1.0, 0.0, 0.9][(sample + seed as usize) % 5];
                if each { numbers(dtype, &lam) } else { Numbers { dtype: Name(dtype), view: View::new(&[]), values: vec![Hex(lam(0))] } }
            }),
            grad_loss: self.grad_loss.map(|dtype| {
                if options.reduction == Reduction::None && seed % 3 != 0 {
                    numbers(dtype, &|sample| [1.0, -0.7, 0.0, 8.0][sample % 4])
                } else {
                    Numbers { dtype: Name(dtype), view: View::new(&[]), values: vec![Hex(12.5)] }
                }
            }),
        }
    }
}

fn reduction() -> impl Strategy<Value = Reduction> {
    prop_oneof![Just(Reduction::Mean), Just(Reduction::Sum), Just(Reduction::None)]
}

fn options() -> impl Strategy<Value = Options> {
    let classes = prop_oneof![8 => 2..20usize, 4 => 20..70usize, 1 => Just(257usize)];
    let loss = (prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], 0..6u8, 0..4u8, reduction());
    let epoch = (0..5usize, 1..4i64, prop_oneof![Just(0.0), Just(0.5), Just(0.9)], prop::option::of(prop_oneof![Just(0.5), Just(0.95)]));
    (classes, loss, epoch).prop_map(|(classes, (alpha, initial, weights, reduction), (policy, min_count, momentum, freeze))| {
        let initial = match initial {
            0 | 1 => Initial::Smoothing(0.1),
            2 => Initial::Uniform,
            3 => Initial::Zero,
            4 => Initial::OneHot,
            _ => Initial::Matrix((0..classes * classes).map(|i| (unit(5, i) * 2.0 / classes as f64) as f32).collect()),
        };
        let weights = match weights {
            1 => Some((0..classes).map(|class| unit(6, class)).collect::<Vec<_>>()),
            2 => Some((0..classes).map(|class| [0.0, 1.0, 0.5][class % 3]).collect()),
            _ => None,
        };
        let policy = [EmptyClass::Keep, EmptyClass::Uniform, EmptyClass::Initial, EmptyClass::OneHot, EmptyClass::Zero][policy];
        Options::new(classes)
            .alpha(alpha)
            .initial(initial)
            .class_weights(weights)
            .reduction(reduction)
            .empty_class(policy)
            .min_count(min_count)
            .momentum(momentum)
            .freeze_above(freeze)
    })
}

/// Options, and what some batches for them are made of.
#[derive(Clone, Debug)]
struct Life {
    options: Options,
    shapes: Vec<Shape>,
}

impl Life {
    fn parts(self) -> (Options, Vec<CaseBatch>) {
        let batches = self.shapes.iter().map(|shape| shape.batch(self.options.classes, &self.options)).collect();
        (self.options, batches)
    }
}

fn life(batches: usize, specials: usize) -> impl Strategy<Value = Life> {
    (options(), prop::collection::vec(shape(specials), 1..=batches)).prop_map(|(options, shapes)| Life { options, shapes })
}

fn loss_view(options: &Options, batch: &CaseBatch) -> Option<View> {
    Some(View::new(if options.reduction == Reduction::None { &batch.targets.view.shape } else { &[] }))
}

fn grad_view(batch: &CaseBatch) -> Option<View> {
    Some(View::new(&batch.logits.view.shape))
}

/// A forward pass with both outputs, row-major.
fn pass(criterion: &mut Criterion, batch: &CaseBatch, update: Update) -> Outputs {
    let options = criterion.options().clone();
    let (result, outputs) = forward(criterion, batch, update, &loss_view(&options, batch), &grad_view(batch), false);
    result.expect("the batch is valid");
    outputs
}

/// The bits of loss and gradient in logical order.
fn bits(outputs: &Outputs) -> Vec<Vec<u64>> {
    [&outputs.loss, &outputs.grad].into_iter().flatten().map(|(buffer, view)| buffer.bits_of(view)).collect()
}

/// The largest finite number of a dtype.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::Bf16 => f64::from(f32::from(bf16::MAX)),
        DType::F32 => f32::MAX.into(),
        _ => f64::MAX,
    }
}

/// Whether `found` is `expected` within the promised accuracy, for a value that is rounded to `dtype`.
fn accepts(dtype: DType, tolerance: Tolerance, found: f64, expected: f64) -> bool {
    let reach = expected.abs() * (1.0 + tolerance.rtol) + tolerance.atol;
    tolerance.accepts(found, expected) || (found.is_infinite() && reach >= largest(dtype) && found.signum() == expected.signum())
}

fn check_pass(reference: &mut Reference, criterion: &mut Criterion, batch: &CaseBatch, update: Update) -> Result<(), TestCaseError> {
    let (dtype, classes) = (batch.logits.dtype.0, reference.options.classes);
    let rows = batch.rows();
    let samples = rows.samples(update);
    let tolerance = loss_tolerance(reference, dtype, &samples);
    let expected = reference.forward(&samples).expect("the batch is valid");
    let outputs = pass(criterion, batch, update);

    let (loss, view) = outputs.loss.as_ref().expect("asked for");
    let loss = loss.values(view);
    let plain = if reference.options.reduction == Reduction::None { DType::F32 } else { dtype };
    for (index, (&found, &expected)) in loss.iter().zip(&expected.loss).enumerate() {
        prop_assert!(accepts(plain, tolerance, found, expected), "loss[{index}] = {found:e} differs from {expected:e}; {tolerance:?}");
    }
    prop_assert_eq!(loss.len(), expected.loss.len());

    let (grad, view) = outputs.grad.as_ref().expect("asked for");
    let (grad, places) = (grad.values(view), batch.row_order());
    let (relative, absolute) = rounding(dtype);
    for (&found, place) in grad.iter().zip(places) {
        let (sample, k) = (place / classes, place % classes);
        let atol = gradient_error(dtype) * scale(reference, &expected) * expected.factor[sample].abs() + absolute;
        let (tolerance, expected) = (Tolerance { atol, rtol: relative }, expected.gradient[place]);
        prop_assert!(
            accepts(dtype, tolerance, found, expected),
            "grad[{sample}, {k}] = {found:e} differs from {expected:e}; {tolerance:?}"
        );
    }
    Ok(())
}

fn check_statistics(reference: &Reference, criterion: &Criterion, rtol: f64) -> Result<(), TestCaseError> {
    let (state, classes) = (State::of(criterion), reference.options.classes);
    prop_assert_eq!(&state.counts, &reference.counts);
    prop_assert_eq!(state.samples_skipped, reference.samples_skipped);
    for (index, (&found, &expected)) in state.sums.iter().zip(&reference.sums).enumerate() {
        let tolerance = Tolerance { atol: reference.counts[index / classes] as f64, rtol };
        prop_assert!(tolerance.accepts(found as f64, expected as f64), "sums[{index}] = {found} differs from {expected}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(150))]

    /// Everything against the reference, over a few epochs of a few batches.
    #[test]
    fn the_library_does_what_the_reference_does(life in life(3, 2), evaluation in any::<bool>()) {
        let (options, batches) = life.parts();
        let mut reference = Reference::new(&options).unwrap();
        let mut criterion = Criterion::new(&options).unwrap();
        for epoch in 0..2 {
            let mode = if epoch == 1 && evaluation { Mode::Eval } else { Mode::Train };
            reference.mode = mode;
            criterion.set_mode(mode);
            for batch in &batches {
                check_pass(&mut reference, &mut criterion, batch, Update::Add)?;
                check_pass(&mut reference, &mut criterion, batch, Update::None)?;
            }
            check_statistics(&reference, &criterion, 2f64.powi(-20))?;
            // From here on the statistics of both are the same ones.
            let classes = options.classes;
            reference.sums = (0..classes).flat_map(|class| criterion.sums(class).to_vec()).collect();
            let (expected, found) = (reference.next_epoch(), criterion.next_epoch().unwrap());
            prop_assert_eq!(CaseReport::from(found), CaseReport::from(expected));
            prop_assert_eq!(criterion.report(), found);
            prop_assert_eq!(criterion.epoch(), epoch + 1);
            for class in 0..classes {
                prop_assert_eq!(criterion.soft_label(class), reference.soft_label(class), "row {}", class);
                prop_assert!(criterion.sums(class).iter().all(|&sum| sum == 0));
            }
            let rows = [found.rows_kept, found.rows_uniform, found.rows_initial, found.rows_one_hot, found.rows_zero, found.rows_frozen];
            prop_assert_eq!(found.rows_measured + rows.iter().sum::<i64>(), classes as i64);
        }
    }

    /// Given probabilities count as in the reference, to the unit.
    #[test]
    fn given_probabilities_count_exactly(life in life(3, 0), nan in any::<bool>()) {
        let (options, batches) = life.parts();
        let mut reference = Reference::new(&options).unwrap();
        let mut criterion = Criterion::new(&options).unwrap();
        for (number, mut batch) in batches.into_iter().enumerate() {
            let dtype = batch.logits.dtype.0;
            for (index, value) in &mut batch.logits.set {
                let view = View::new(&[1]);
                *value = Hex(Buffer::numbers(dtype, &view, &[unit(number as u64, *index)]).get(0));
            }
            if nan && !batch.logits.set.is_empty() {
                batch.logits.set[0].1 = Hex(f64::NAN);
            }
            let rows = batch.rows();
            for update in [Update::Add, Update::None, Update::Add, Update::TakeBack] {
                reference.accumulate(&rows.samples(update)).unwrap();
                runner::accumulate(&mut criterion, &batch, update).unwrap();
                check_statistics(&reference, &criterion, 0.0)?;
                prop_assert_eq!(State::of(&criterion).sums, reference.sums.clone());
            }
        }
    }

    /// A row's gradient sums to 0, and no loss is negative.
    #[test]
    fn gradients_sum_to_zero(life in life(2, 0)) {
        let (mut options, batches) = life.parts();
        options.reduction = Reduction::None;
        let mut criterion = Criterion::new(&options).unwrap();
        for batch in &batches {
            let mut batch = batch.clone();
            batch.grad_loss = None;
            let outputs = pass(&mut criterion, &batch, Update::Add);
            let (loss, view) = outputs.loss.as_ref().unwrap();
            prop_assert!(loss.values(view).iter().all(|&loss| loss >= 0.0));
            let (grad, view) = outputs.grad.as_ref().unwrap();
            let mut rows = vec![(0.0, 0.0); batch.targets.values.len()];
            for (value, place) in grad.values(view).into_iter().zip(batch.row_order()) {
                rows[place / options.classes].0 += value;
                rows[place / options.classes].1 += value.abs();
            }
            let dtype = batch.logits.dtype.0;
            for (sum, size) in rows {
                let tolerance = 2.0 * options.classes as f64 * (gradient_error(dtype) + rounding(dtype).1) + rounding(dtype).0 * size;
                prop_assert!(sum.abs() <= tolerance, "{sum:e} of {size:e}");
            }
        }
    }

    /// Backward gives the gradient that forward gave, in place or not; whatever else is asked for, and in every layout.
    #[test]
    fn every_way_to_a_result_gives_the_same_bits(life in life(1, 2), threads in 1..5usize) {
        let (options, batches) = life.parts();
        let batch = &batches[0];
        let mut criterion = Criterion::new(&options).unwrap();
        let both = pass(&mut criterion, batch, Update::Add);
        let state = State::of(&criterion);
        let (loss, grad) = (loss_view(&options, batch), grad_view(batch));

        let (result, backward) = runner::backward(&mut criterion, batch, grad.as_ref().unwrap());
        result.unwrap();
        prop_assert_eq!(bits(&backward)[0].clone(), bits(&both)[1].clone());
        prop_assert_eq!(&State::of(&criterion), &state);

        let mut contiguous = batch.clone();
        contiguous.logits.view = View::new(&batch.logits.view.shape);
        contiguous.targets.view = View::new(&batch.targets.view.shape);
        let own = Some(batch.logits.view.clone());
        let ways = [
            (batch, &loss, &None, false),
            (batch, &None, &grad, false),
            (batch, &None, &None, false),
            (batch, &loss, &own, false),
            (batch, &loss, &None, true),
            (&contiguous, &loss, &grad, false),
            (&contiguous, &loss, &None, true),
        ];
        for (batch, loss, grad, in_place) in ways {
            let mut other = Criterion::new(&options.clone().threads(threads)).unwrap();
            let (result, outputs) = forward(&mut other, batch, Update::Add, loss, grad, in_place);
            result.unwrap();
            for (found, expected) in [(&outputs.loss, &both.loss), (&outputs.grad, &both.grad)] {
                if let (Some((found, view)), Some((expected, row_major))) = (found, expected) {
                    prop_assert_eq!(found.bits_of(view), expected.bits_of(row_major));
                }
            }
            prop_assert_eq!(&State::of(&other), &state);
        }
    }

    /// A row's result does not depend on its neighbours, and the statistics not on order, split or threads.
    #[test]
    fn neighbours_order_and_threads_change_no_bit(life in life(1, 2), threads in 1..5usize) {
        let (mut options, batches) = life.parts();
        options.reduction = Reduction::None;
        let mut batch = batches[0].clone();
        batch.grad_loss = None;
        let mut whole = Criterion::new(&options).unwrap();
        let outputs = pass(&mut whole, &batch, Update::Add);
        let places = batch.row_order();
        let grad = outputs.grad.as_ref().unwrap().0.bits();
        let rows = batch.rows();
        let mut apart = Criterion::new(&options.clone().threads(threads)).unwrap();
        for sample in (0..batch.targets.values.len()).rev() {
            let one = one_sample(&batch, &rows.logits, sample, options.classes);
            let alone = pass(&mut apart, &one, Update::Add);
            prop_assert_eq!(alone.loss.unwrap().0.bits()[0], outputs.loss.as_ref().unwrap().0.bits()[sample]);
            let row: Vec<u64> = (0..grad.len()).filter(|&i| places[i] / options.classes == sample).map(|i| grad[i]).collect();
            prop_assert_eq!(alone.grad.unwrap().0.bits(), row);
        }
        prop_assert_eq!(State::of(&apart), State::of(&whole));
    }

    /// What was added and is taken back was never there; more cannot be taken back.
    #[test]
    fn taking_back_is_exact(life in life(2, 2), evaluation in any::<bool>()) {
        let (options, batches) = life.parts();
        let mut criterion = Criterion::new(&options).unwrap();
        pass(&mut criterion, &batches[0], Update::Add);
        let before = State::of(&criterion);
        let batch = batches.last().unwrap();
        let added = pass(&mut criterion, batch, Update::Add);
        if evaluation {
            criterion.set_mode(Mode::Eval);
        }
        let taken = pass(&mut criterion, batch, Update::TakeBack);
        prop_assert_eq!(bits(&taken), bits(&added));
        prop_assert_eq!(State::of(&criterion), before);

        pass(&mut criterion, &batches[0], Update::TakeBack);
        let state = State::of(&criterion);
        prop_assert!(state.counts.iter().chain(&state.sums).all(|&value| value == 0) && state.samples_skipped == 0);
        let mut counted = Criterion::new(&options).unwrap();
        pass(&mut counted, batch, Update::Add);
        let (loss, grad) = (loss_view(&options, batch), grad_view(batch));
        let (result, outputs) = forward(&mut criterion, batch, Update::TakeBack, &loss, &grad, false);
        if counted.counts().iter().any(|&count| count > 0) {
            prop_assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidState);
            prop_assert_eq!(outputs.bits(), untouched(batch, &loss, &grad).bits());
        } else {
            result.unwrap();
        }
        prop_assert_eq!(State::of(&criterion), state);
    }

    /// A soft label that was measured is a distribution.
    #[test]
    fn measured_soft_labels_sum_to_one(life in life(3, 1)) {
        let (mut options, batches) = life.parts();
        (options.momentum, options.freeze_above, options.empty_class) = (0.0, None, EmptyClass::Keep);
        let mut criterion = Criterion::new(&options).unwrap();
        for batch in &batches {
            pass(&mut criterion, batch, Update::Add);
        }
        let counts = criterion.counts().to_vec();
        criterion.next_epoch().unwrap();
        for class in (0..options.classes).filter(|&class| counts[class] >= options.min_count) {
            let sum: f64 = criterion.soft_label(class).iter().map(|&value| f64::from(value)).sum();
            prop_assert!((sum - 1.0).abs() <= 1e-6, "{sum}");
        }
    }

    /// A criterion that was saved and loaded goes on as the one that never stopped.
    #[test]
    fn a_resumed_run_continues_bitwise(life in life(3, 1), alpha in 0.0..=1.0f64) {
        let (options, batches) = life.parts();
        let mut straight = Criterion::new(&options).unwrap();
        let mut resumed = Criterion::new(&options).unwrap();
        for step in 0..3 {
            for batch in &batches {
                prop_assert_eq!(bits(&pass(&mut straight, batch, Update::Add)), bits(&pass(&mut resumed, batch, Update::Add)));
                runner::save_load(&mut resumed).unwrap();
                prop_assert_eq!(State::of(&straight), State::of(&resumed));
                prop_assert_eq!(straight.epoch(), resumed.epoch());
                prop_assert_eq!(straight.to_bytes().unwrap(), resumed.to_bytes().unwrap());
            }
            if step == 1 {
                straight.set_alpha(alpha).unwrap();
                resumed.set_alpha(alpha).unwrap();
            } else {
                prop_assert_eq!(straight.next_epoch().unwrap(), resumed.next_epoch().unwrap());
            }
        }
    }

    /// With alpha 1 the loss is cross entropy; with alpha 0 it is label smoothing in the first epoch.
    #[test]
    fn the_ends_of_alpha(life in life(1, 0), eps in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], hard in any::<bool>()) {
        let (mut options, batches) = life.parts();
        options.reduction = Reduction::None;
        options.alpha = f64::from(hard);
        options.initial = Initial::Smoothing(eps);
        options.class_weights = None;
        let mut batch = batches[0].clone();
        (batch.sample_weights, batch.targets2, batch.lam, batch.grad_loss) = (None, None, None, None);
        let mut criterion = Criterion::new(&options).unwrap();
        let outputs = pass(&mut criterion, &batch, Update::Add);
        let (classes, dtype) = (options.classes, batch.logits.dtype.0);
        let rows = batch.rows();
        for (sample, row) in rows.logits.chunks(classes).enumerate() {
            let mut expected = 0.0;
            if batch.targets.values[sample] != options.ignore_index {
                let class = (batch.targets.values[sample] - batch.target_offset) as usize;
                let largest = row.iter().copied().fold(f64::MIN, f64::max);
                let log_sum = row.iter().map(|z| (z - largest).exp()).sum::<f64>().ln();
                for (k, z) in row.iter().enumerate() {
                    let (own, other) = if hard { (1.0, 0.0) } else { (1.0 - eps, eps / (classes as f64 - 1.0)) };
                    expected += (if k == class { own } else { other }) * (log_sum + largest - z);
                }
            }
            let found = outputs.loss.as_ref().unwrap().0.get(sample);
            // S holds the smoothing as f32.
            let tolerance = loss_error(dtype) + if hard { 0.0 } else { 2f64.powi(-23) };
            prop_assert!((found - expected).abs() <= tolerance * expected.max(1.0), "{found} differs from {expected}");
        }
    }

    /// A batch that breaks a rule changes nothing.
    #[test]
    fn errors_change_nothing(life in life(2, 1), what in 0..6u8, place in 0..100usize) {
        let (options, batches) = life.parts();
        let mut bad = batches.last().unwrap().clone();
        let n = bad.targets.values.len();
        prop_assume!(n > 0);
        let one = |value: f64| {
            let mut values = vec![Hex(0.5); n];
            values[place % n] = Hex(value);
            Some(Numbers { dtype: Name(DType::F64), view: View::new(&bad.targets.view.shape), values })
        };
        let kind = match what {
            0 | 1 => {
                bad.targets.values[place % n] = if what == 0 { options.classes as i64 + bad.target_offset } else { bad.target_offset - 1 };
                if bad.targets.values[place % n] < 0 {
                    bad.targets.dtype = Name(DType::I64);
                }
                if bad.targets.values[place % n] > 255 {
                    bad.targets.dtype = Name(DType::I64);
                }
                ErrorKind::TargetOutOfRange
            }
            2 | 3 => {
                bad.sample_weights = one(if what == 2 { -0.5 } else { f64::NAN });
                ErrorKind::InvalidArgument
            }
            _ => {
                bad.targets2 = Some(bad.targets.clone());
                bad.lam = one(if what == 4 { 1.25 } else { -1e-300 });
                ErrorKind::InvalidArgument
            }
        };
        let mut criterion = Criterion::new(&options).unwrap();
        pass(&mut criterion, &batches[0], Update::Add);
        let before = criterion.to_bytes().unwrap();
        let (loss, grad) = (loss_view(&options, &bad), grad_view(&bad));
        for in_place in [false, true] {
            let (result, outputs) = forward(&mut criterion, &bad, Update::Add, &loss, if in_place { &None } else { &grad }, in_place);
            prop_assert_eq!(result.unwrap_err().kind(), kind);
            let mut untouched = untouched(&bad, &loss, &grad);
            if in_place {
                untouched.grad = Some((Tensors::new(&bad).logits, bad.logits.view.clone()));
            }
            prop_assert_eq!(outputs.bits(), untouched.bits());
        }
        let (result, outputs) = runner::backward(&mut criterion, &bad, grad.as_ref().unwrap());
        prop_assert_eq!(result.unwrap_err().kind(), kind);
        prop_assert_eq!(outputs.bits(), untouched(&bad, &None, &grad).bits());
        prop_assert!(runner::accumulate(&mut criterion, &bad, Update::Add).is_err());
        prop_assert_eq!(criterion.to_bytes().unwrap(), before);
    }
}

/// The outputs of a call that wrote nothing.
fn untouched(batch: &CaseBatch, loss: &Option<View>, grad: &Option<View>) -> Outputs {
    let dtype = batch.logits.dtype.0;
    let loss_dtype = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    Outputs {
        loss: loss.clone().map(|view| (Buffer::unused(loss_dtype, view.length()), view)),
        grad: grad.clone().map(|view| (Buffer::unused(dtype, view.length()), view)),
    }
}

/// One sample of a batch, as a batch of shape (1, K).
fn one_sample(batch: &CaseBatch, rows: &[f64], sample: usize, classes: usize) -> CaseBatch {
    let row = &rows[sample * classes..][..classes];
    let mut one = batch.clone();
    one.logits.view = View::new(&[1, classes]);
    one.logits.set = row.iter().copied().map(Hex).enumerate().collect();
    let view = View::new(&[1]);
    for targets in [Some(&mut one.targets), one.targets2.as_mut()].into_iter().flatten() {
        (targets.view, targets.values) = (view.clone(), vec![targets.values[sample]]);
    }
    for numbers in [one.sample_weights.as_mut(), one.lam.as_mut()].into_iter().flatten() {
        let place = if numbers.values.len() == 1 { 0 } else { sample };
        (numbers.view, numbers.values) = (view.clone(), vec![numbers.values[place]]);
    }
    one
}

/// Logits in [-4, 4) where every second sample is classified right, and targets.
fn plain_batch(n: usize, classes: usize, seed: u64) -> (Vec<f32>, Vec<i64>) {
    let targets: Vec<i64> = (0..n).map(|sample| (splitmix64(seed + 1, sample as u64) % classes as u64) as i64).collect();
    let mut logits: Vec<f32> = (0..n * classes).map(|i| (8.0 * unit(seed, i) - 4.0) as f32).collect();
    for sample in (0..n).step_by(2) {
        logits[sample * classes + targets[sample] as usize] = 4.5;
    }
    (logits, targets)
}

/// Loss and gradient of row-major f32 logits with `Mean` or `Sum`.
fn step(criterion: &mut Criterion, logits: &[f32], targets: &[i64]) -> (f32, Vec<f32>) {
    let mut gradient = vec![0f32; logits.len()];
    let loss = criterion.loss_and_gradient(logits, targets, &mut gradient).unwrap();
    (loss, gradient)
}

fn rows(criterion: &Criterion) -> Vec<Vec<f32>> {
    (0..criterion.options().classes).map(|class| criterion.soft_label(class).to_vec()).collect()
}

#[test]
fn trap_1_an_absent_class_keeps_its_soft_label_and_its_gradient() {
    let mut criterion = Criterion::new(&Options::new(3).alpha(0.0)).unwrap();
    step(&mut criterion, &[3.0, 0.0, 0.0], &[0]);
    let before = rows(&criterion);
    criterion.next_epoch().unwrap();
    assert_eq!(rows(&criterion)[1..], before[1..]);
    // Class 1 had no right answer; at alpha 0 it learns all the same.
    let (loss, gradient) = step(&mut criterion, &[3.0, 0.0, 0.0], &[1]);
    assert!(loss > 1.0 && gradient[1] < -0.5, "{loss} {gradient:?}");
}

#[test]
fn trap_2_ending_an_epoch_twice_or_after_evaluation_keeps_the_soft_labels() {
    for policy in [EmptyClass::Keep, EmptyClass::Uniform, EmptyClass::Initial, EmptyClass::OneHot, EmptyClass::Zero] {
        let (logits, targets) = plain_batch(20, 4, 2);
        let mut criterion = Criterion::new(&Options::new(4).empty_class(policy)).unwrap();
        step(&mut criterion, &logits, &targets);
        criterion.next_epoch().unwrap();
        let before = rows(&criterion);
        assert_eq!(criterion.next_epoch().unwrap().rows_kept, 4);
        criterion.set_mode(Mode::Eval);
        step(&mut criterion, &logits, &targets);
        assert_eq!(criterion.next_epoch().unwrap().samples_accumulated, 0);
        assert_eq!((rows(&criterion), criterion.epoch()), (before, 3), "{policy:?}");
    }
}

#[test]
fn trap_3_a_row_that_is_not_finite_is_seen_and_poisons_nothing() {
    for poison in [f32::NAN, f32::INFINITY] {
        let mut criterion = Criterion::new(&Options::new(3)).unwrap();
        let (loss, gradient) = step(&mut criterion, &[3.0, 0.0, 0.0, 3.0, poison, 0.0], &[0, 1]);
        assert!(loss.is_nan() && gradient[..3].iter().all(|g| g.is_finite()) && gradient[3..].iter().all(|g| g.is_nan()));
        let report = criterion.next_epoch().unwrap();
        assert_eq!((report.samples_accumulated, report.samples_skipped), (1, 1));
        assert!(rows(&criterion).concat().iter().all(|s| s.is_finite()));
        assert!(step(&mut criterion, &[3.0, 0.0, 0.0], &[0]).0.is_finite());
    }
}

/// Doubles the statistics of `criterion`.
fn double(criterion: &mut Criterion) {
    let mut copy = Criterion::new(criterion.options()).unwrap();
    copy.load_bytes(&criterion.to_bytes().unwrap()).unwrap();
    criterion.merge(&copy).unwrap();
}

#[test]
fn trap_4_every_dtype_and_counts_beyond_24_bits() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        let shape = Shape {
            dtype,
            n: 3,
            inner: None,
            seed: 4,
            spread: 4.0,
            layout: 0,
            target_dtype: DType::U8,
            offset: 0,
            ignored: false,
            weights: None,
            mixed: None,
            grad_loss: None,
            special: vec![],
        };
        let mut criterion = Criterion::new(&Options::new(5)).unwrap();
        let batch = shape.batch(5, criterion.options());
        pass(&mut criterion, &batch, Update::Add);
        assert_eq!(criterion.counts().iter().sum::<i64>(), 2);
    }
    // 2^24 + 1, and a class that is full.
    let mut criterion = Criterion::new(&Options::new(2)).unwrap();
    step(&mut criterion, &[1.0, 0.0], &[0]);
    (0..24).for_each(|_| double(&mut criterion));
    step(&mut criterion, &[1.0, 0.0], &[0]);
    assert_eq!(criterion.counts(), [(1 << 24) + 1, 0]);
    for _ in 0..8 {
        double(&mut criterion);
    }
    assert_eq!(criterion.counts()[0], (1 << 32) + (1 << 8));
    let mut criterion = Criterion::new(&Options::new(2)).unwrap();
    step(&mut criterion, &[1.0, 0.0], &[0]);
    (0..32).for_each(|_| double(&mut criterion));
    let (sums, counts) = (criterion.sums(0).to_vec(), criterion.counts().to_vec());
    assert_eq!(counts, [1 << 32, 0]);
    step(&mut criterion, &[1.0, 0.0], &[0]);
    assert_eq!((criterion.sums(0), criterion.counts()), (&sums[..], &counts[..]));
    assert_eq!(criterion.running().classes_full, 1);
    let report = criterion.next_epoch().unwrap();
    assert_eq!((report.classes_full, report.samples_accumulated), (1, 1 << 32));
    assert!((criterion.soft_label(0)[0] - 1.0 / (1.0 + (-1f32).exp())).abs() < 1e-6);
}

#[test]
fn trap_5_ignored_samples_images_reductions_and_weights() {
    let classes = 5;
    let (logits, mut targets) = plain_batch(8, classes, 5);
    (targets[2], targets[5]) = (-100, -100);
    let keep = |sample: &usize| targets[*sample] != -100;
    let some_logits: Vec<f32> = (0..8).filter(keep).flat_map(|sample| logits[sample * classes..][..classes].to_vec()).collect();
    let some_targets: Vec<i64> = targets.iter().copied().filter(|&target| target != -100).collect();
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let options = Options::new(classes).reduction(reduction).class_weights(vec![1.0, 0.5, 0.25, 2.0, 0.0]);
        let (mut all, mut some) = (Criterion::new(&options).unwrap(), Criterion::new(&options).unwrap());
        assert_eq!(step(&mut all, &logits, &targets).0, step(&mut some, &some_logits, &some_targets).0);
        assert_eq!(State::of(&all), State::of(&some));
        // As an image of 2 x 4 pixels with the class in the middle.
        let mut image = vec![0f32; logits.len()];
        for sample in 0..8 {
            for k in 0..classes {
                image[(sample / 4 * classes + k) * 4 + sample % 4] = logits[sample * classes + k];
            }
        }
        let mut images = Criterion::new(&options).unwrap();
        let (mut loss, mut gradient) = (0f32, vec![0f32; image.len()]);
        let batch = Batch::new(TensorRef::new(&image, &[2, classes, 4]).unwrap(), TensorRef::new(&targets, &[2, 4]).unwrap());
        images.forward(&batch, Some(TensorMut::scalar(&mut loss)), Some(TensorMut::new(&mut gradient, &[2, classes, 4]).unwrap())).unwrap();
        let (flat_loss, flat_gradient) = step(&mut Criterion::new(&options).unwrap(), &logits, &targets);
        assert_eq!(loss, flat_loss);
        for sample in 0..8 {
            for k in 0..classes {
                assert_eq!(gradient[(sample / 4 * classes + k) * 4 + sample % 4], flat_gradient[sample * classes + k]);
            }
        }
        assert_eq!(State::of(&images), State::of(&all));
    }
}

#[test]
fn trap_6_workers_that_share_an_epoch_learn_what_one_learns() {
    let (logits, targets) = plain_batch(160, 7, 6);
    let mut one = Criterion::new(&Options::new(7)).unwrap();
    step(&mut one, &logits, &targets);
    let mut workers: Vec<Criterion> = (0..3).map(|_| Criterion::new(&Options::new(7)).unwrap()).collect();
    for (sample, &target) in targets.iter().enumerate() {
        step(&mut workers[sample % 3], &logits[sample * 7..][..7], &[target]);
    }
    let (first, others) = workers.split_first_mut().unwrap();
    others.iter().for_each(|other| first.merge(other).unwrap());
    assert_eq!(State::of(first), State::of(&one));
    assert_eq!(first.next_epoch().unwrap(), one.next_epoch().unwrap());
    assert_eq!(rows(first), rows(&one));
}

#[test]
fn trap_7_second_passes_do_not_count_or_are_taken_back() {
    let (logits, targets) = plain_batch(30, 4, 7);
    let view = || Batch::new(TensorRef::new(&logits, &[30, 4]).unwrap(), TensorRef::new(&targets, &[30]).unwrap());
    let mut criterion = Criterion::new(&Options::new(4)).unwrap();
    criterion.forward(&view(), None, None).unwrap();
    let once = State::of(&criterion);
    criterion.forward(&view().update(Update::None), None, None).unwrap();
    assert_eq!(State::of(&criterion), once);
    criterion.forward(&view(), None, None).unwrap();
    assert_eq!(criterion.counts().iter().sum::<i64>(), 2 * once.counts.iter().sum::<i64>());
    criterion.forward(&view().update(Update::TakeBack), None, None).unwrap();
    assert_eq!(State::of(&criterion), once);
}

#[test]
fn trap_8_options_are_checked_and_an_empty_batch_costs_nothing() {
    let bad = [
        Options::new(1),
        Options::new(0),
        Options::new(4).initial(Initial::Smoothing(1.5)),
        Options::new(4).initial(Initial::Smoothing(f64::NAN)),
        Options::new(4).alpha(f64::NAN),
        Options::new(4).alpha(1.0 + f64::EPSILON),
        Options::new(4).momentum(1.0),
        Options::new(4).min_count(0),
    ];
    for options in bad {
        assert_eq!(Criterion::new(&options).unwrap_err().kind(), ErrorKind::InvalidArgument, "{options:?}");
    }
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let mut criterion = Criterion::new(&Options::new(4).reduction(reduction)).unwrap();
        assert_eq!(step(&mut criterion, &[], &[]), (0.0, vec![]));
        assert_eq!(step(&mut criterion, &[f32::NAN; 4], &[-100]), (0.0, vec![0.0; 4]));
    }
}

#[test]
fn trap_9_soft_labels_stay_where_they_are() {
    let (logits, targets) = plain_batch(30, 4, 9);
    let mut criterion = Criterion::new(&Options::new(4)).unwrap();
    let place = |criterion: &Criterion| (criterion.soft_label(0).as_ptr(), criterion.sums(0).as_ptr(), criterion.counts().as_ptr());
    let before = place(&criterion);
    step(&mut criterion, &logits, &targets);
    let saved = criterion.to_bytes().unwrap();
    criterion.next_epoch().unwrap();
    criterion.set_soft_labels(&[0.25; 16]).unwrap();
    criterion.load_bytes(&saved).unwrap();
    assert_eq!(place(&criterion), before);
}

#[test]
fn trap_10_everything_that_shapes_the_result_is_saved() {
    let (logits, targets) = plain_batch(40, 4, 10);
    let options = Options::new(4)
        .alpha(0.25)
        .initial(Initial::Matrix((0..16).map(|i| i as f32 / 32.0).collect()))
        .empty_class(EmptyClass::Initial)
        .min_count(7)
        .momentum(0.5)
        .freeze_above(0.97)
        .class_weights(vec![1.0, 0.5, 0.25, 0.75])
        .ignore_index(3);
    let mut saved = Criterion::new(&options).unwrap();
    step(&mut saved, &logits, &targets);
    saved.next_epoch().unwrap();
    step(&mut saved, &logits, &targets);
    let mut loaded = Criterion::new(&Options::new(4).reduction(Reduction::Sum).mode(Mode::Eval)).unwrap();
    loaded.load_bytes(&saved.to_bytes().unwrap()).unwrap();
    // Mode and reduction stay the caller's.
    assert_eq!((loaded.mode(), loaded.options().reduction), (Mode::Eval, Reduction::Sum));
    let expected = options.reduction(Reduction::Sum).mode(loaded.options().mode);
    assert_eq!(*loaded.options(), expected);
    assert_eq!((State::of(&loaded), loaded.epoch()), (State::of(&saved), 1));
    assert_eq!((loaded.next_epoch().unwrap(), rows(&loaded)), (saved.next_epoch().unwrap(), rows(&saved)));
    // Another number of classes is an error.
    let mut other = Criterion::new(&Options::new(5)).unwrap();
    let before = other.to_bytes().unwrap();
    assert!(other.load_bytes(&saved.to_bytes().unwrap()).is_err());
    assert_eq!(other.to_bytes().unwrap(), before);
}

#[test]
fn trap_11_a_soft_label_is_a_row() {
    let mut criterion = Criterion::new(&Options::new(3)).unwrap();
    let p = [0.75f32, 0.125, 0.125];
    criterion.accumulate(&Batch::new(TensorRef::new(&p, &[1, 3]).unwrap(), TensorRef::new(&[0i64], &[1]).unwrap())).unwrap();
    criterion.next_epoch().unwrap();
    assert_eq!(criterion.soft_label(0), p);
    // And it is the row of the target that a loss takes: S[0] for target 0.
    criterion.set_alpha(0.0).unwrap();
    let (loss, _) = step(&mut criterion, &[1.0, 0.0, -1.0], &[0]);
    let log_sum = (1f32.exp() + 1.0 + (-1f32).exp()).ln();
    assert!((loss - (log_sum - (0.75 - 0.125))).abs() < 1e-6);
}

#[test]
fn trap_12_every_sample_of_a_class_counts_for_its_target() {
    let mut criterion = Criterion::new(&Options::new(3)).unwrap();
    let logits = [[2.0f32, 0.0, 0.0]; 10].concat();
    // Nine are right; the tenth is predicted as 0 but is a 1, and counts for neither.
    let mut targets = [0i64; 10];
    targets[4] = 1;
    step(&mut criterion, &logits, &targets);
    assert_eq!(criterion.counts(), [9, 0, 0]);
    let one = Criterion::new(&Options::new(3)).map(|mut one| {
        step(&mut one, &logits[..3], &[0]);
        one.sums(0).to_vec()
    });
    assert_eq!(criterion.sums(0), one.unwrap().iter().map(|sum| 9 * sum).collect::<Vec<_>>());
}

/// One logit 17 above many equal ones: their sum in plain f32 is wrong.
#[test]
fn peaked_rows_are_accurate() {
    let classes = 4096;
    let options = Options::new(classes).alpha(1.0).reduction(Reduction::None);
    let mut reference = Reference::new(&options).unwrap();
    let mut criterion = Criterion::new(&options).unwrap();
    for (place, dtype) in [(0, DType::F32), (1, DType::F64), (4095, DType::F32), (2047, DType::Bf16), (77, DType::F16)] {
        for height in [17.0, 8.25, 30.0] {
            let mut set = vec![Hex(0.5); 2 * classes];
            (set[place], set[classes + place]) = (Hex(0.5 + height), Hex(0.5 + height));
            let stored = Buffer::numbers(dtype, &View::new(&[2 * classes]), &set.iter().map(|value| value.0).collect::<Vec<_>>());
            let batch = CaseBatch {
                logits: Logits {
                    dtype: Name(dtype),
                    view: View::new(&[2, classes]),
                    seed: 0,
                    exponent: 0,
                    absolute: false,
                    raised: vec![],
                    set: (0..2 * classes).map(|index| (index, Hex(stored.get(index)))).collect(),
                },
                targets: Targets {
                    dtype: Name(DType::I64),
                    view: View::new(&[2]),
                    values: vec![place as i64, (place as i64 + 1) % classes as i64],
                },
                target_offset: 0,
                sample_weights: None,
                targets2: None,
                lam: None,
                grad_loss: None,
            };
            check_pass(&mut reference, &mut criterion, &batch, Update::None).unwrap();
        }
    }
}

/// The mean of many samples is as accurate as a sample; and no bit of it depends on the threads.
#[test]
fn many_samples_are_accurate_on_any_number_of_threads() {
    let (n, classes) = (50_000, 3);
    let (logits, targets) = plain_batch(n, classes, 13);
    let mut reference = Reference::new(&Options::new(classes)).unwrap();
    let wide: Vec<f64> = logits.iter().map(|&z| z.into()).collect();
    let expected = reference.forward(&ols::reference::Samples::new(&wide, &targets)).unwrap();
    let mut first = None;
    for threads in [1, 2, 3, 16, 0] {
        let mut criterion = Criterion::new(&Options::new(classes).threads(threads)).unwrap();
        let (loss, gradient) = step(&mut criterion, &logits, &targets);
        assert!((f64::from(loss) - expected.loss[0]).abs() <= 2e-6 * expected.loss[0].max(1.0), "{loss} differs from {}", expected.loss[0]);
        assert_eq!(criterion.counts(), reference.counts);
        let found = (loss.to_bits(), gradient.iter().map(|g| g.to_bits()).collect::<Vec<_>>(), State::of(&criterion));
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{threads} threads");
    }
}

/// f16 gradients of a scaled loss are rounded once: what is too small for f16 before it is scaled is there afterwards.
#[test]
fn loss_scaling_reaches_small_gradients() {
    let logits = [f16::from_f32(18.0), f16::from_f32(0.0)];
    let scale = [65536f32];
    let mut gradient = [f16::ZERO; 2];
    let mut criterion = Criterion::new(&Options::new(2).alpha(1.0)).unwrap();
    let batch = Batch::new(TensorRef::new(&logits, &[1, 2]).unwrap(), TensorRef::new(&[0i64], &[1]).unwrap());
    let batch = batch.grad_loss(TensorRef::scalar(&scale[0]));
    criterion.forward(&batch, None, Some(TensorMut::new(&mut gradient, &[1, 2]).unwrap())).unwrap();
    let expected = 65536.0 / (1.0 + 18f64.exp());
    assert!((f64::from(gradient[1]) - expected).abs() <= 2f64.powi(-11) * expected, "{gradient:?} {expected}");
}
