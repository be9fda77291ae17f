//! Random batches and options for the property tests, and what a pass over them must give.

use ols::reference::Reference;
use ols::{Criterion, DType, EmptyClass, Initial, Options, Reduction, Update, bf16};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::buffer::Buffer;
use super::hex::Hex;
use super::model::{CaseBatch, Logits, Name, Numbers, Targets, View, splitmix64};
use super::oracle::{Tolerance, gradient_error, loss_tolerance, rounding, scale};
use super::runner::{Outputs, State, forward};

/// `cases` from a fixed seed, where the environment says nothing else.
pub fn config(cases: u32) -> ProptestConfig {
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
pub fn unit(seed: u64, index: usize) -> f64 {
    (splitmix64(seed, index as u64) >> 11) as f64 / (1u64 << 53) as f64
}

/// What a batch is made of; small numbers, so that a failure shrinks to something readable.
#[derive(Clone, Debug)]
pub struct Shape {
    pub dtype: DType,
    pub n: usize,
    pub inner: Option<usize>,
    pub seed: u64,
    /// Logits lie in [-spread, spread).
    pub spread: f64,
    pub layout: u8,
    pub target_dtype: DType,
    pub offset: i64,
    pub ignored: bool,
    pub weights: Option<DType>,
    pub mixed: Option<(DType, bool)>,
    pub grad_loss: Option<DType>,
    pub special: Vec<(usize, u8)>,
}

pub fn logit_dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64), Just(DType::F16), Just(DType::Bf16)]
}

pub fn weight_dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64)]
}

pub fn shape(specials: usize) -> impl Strategy<Value = Shape> {
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
pub fn layout(shape: &[usize], layout: u8) -> View {
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
    /// Rows of logits in [-4, 4), two of three classified right, and nothing else.
    pub fn rows(dtype: DType, n: usize, seed: u64) -> Self {
        Self {
            dtype,
            n,
            inner: None,
            seed,
            spread: 4.0,
            layout: 0,
            target_dtype: DType::I64,
            offset: 0,
            ignored: false,
            weights: None,
            mixed: None,
            grad_loss: None,
            special: vec![],
        }
    }

    pub fn batch(&self, classes: usize, options: &Options) -> CaseBatch {
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

pub fn reduction() -> impl Strategy<Value = Reduction> {
    prop_oneof![Just(Reduction::Mean), Just(Reduction::Sum), Just(Reduction::None)]
}

pub fn options() -> impl Strategy<Value = Options> {
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
pub struct Life {
    pub options: Options,
    pub shapes: Vec<Shape>,
}

impl Life {
    pub fn parts(self) -> (Options, Vec<CaseBatch>) {
        let batches = self.shapes.iter().map(|shape| shape.batch(self.options.classes, &self.options)).collect();
        (self.options, batches)
    }
}

pub fn life(batches: usize, specials: usize) -> impl Strategy<Value = Life> {
    (options(), prop::collection::vec(shape(specials), 1..=batches)).prop_map(|(options, shapes)| Life { options, shapes })
}

pub fn loss_view(options: &Options, batch: &CaseBatch) -> Option<View> {
    Some(View::new(if options.reduction == Reduction::None { &batch.targets.view.shape } else { &[] }))
}

pub fn grad_view(batch: &CaseBatch) -> Option<View> {
    Some(View::new(&batch.logits.view.shape))
}

/// A forward pass with both outputs, row-major.
pub fn pass(criterion: &mut Criterion, batch: &CaseBatch, update: Update) -> Outputs {
    let options = criterion.options().clone();
    let (result, outputs) = forward(criterion, batch, update, &loss_view(&options, batch), &grad_view(batch), false);
    result.expect("the batch is valid");
    outputs
}

/// The bits of loss and gradient in logical order.
pub fn bits(outputs: &Outputs) -> Vec<Vec<u64>> {
    [&outputs.loss, &outputs.grad].into_iter().flatten().map(|(buffer, view)| buffer.bits_of(view)).collect()
}

/// The largest finite number of a dtype.
pub fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::Bf16 => f64::from(f32::from(bf16::MAX)),
        DType::F32 => f32::MAX.into(),
        _ => f64::MAX,
    }
}

/// Whether `found` is `expected` within the promised accuracy, for a value that is rounded to `dtype`.
pub fn accepts(dtype: DType, tolerance: Tolerance, found: f64, expected: f64) -> bool {
    let reach = expected.abs() * (1.0 + tolerance.rtol) + tolerance.atol;
    tolerance.accepts(found, expected) || (found.is_infinite() && reach >= largest(dtype) && found.signum() == expected.signum())
}

pub fn check_pass(reference: &mut Reference, criterion: &mut Criterion, batch: &CaseBatch, update: Update) -> Result<(), TestCaseError> {
    let outputs = pass(criterion, batch, update);
    check_outputs(reference, batch, update, &outputs)
}

/// Runs the reference on a batch, and compares what another one made of it.
pub fn check_outputs(reference: &mut Reference, batch: &CaseBatch, update: Update, outputs: &Outputs) -> Result<(), TestCaseError> {
    let (dtype, classes) = (batch.logits.dtype.0, reference.options.classes);
    let rows = batch.rows();
    let samples = rows.samples(update);
    let tolerance = loss_tolerance(reference, dtype, &samples);
    let expected = reference.forward(&samples).expect("the batch is valid");

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

pub fn check_statistics(reference: &Reference, criterion: &Criterion, rtol: f64) -> Result<(), TestCaseError> {
    check_state(reference, &State::of(criterion), rtol)
}

pub fn check_state(reference: &Reference, state: &State, rtol: f64) -> Result<(), TestCaseError> {
    let classes = reference.options.classes;
    prop_assert_eq!(&state.counts, &reference.counts);
    prop_assert_eq!(state.samples_skipped, reference.samples_skipped);
    for (index, (&found, &expected)) in state.sums.iter().zip(&reference.sums).enumerate() {
        let tolerance = Tolerance { atol: reference.counts[index / classes] as f64, rtol };
        prop_assert!(tolerance.accepts(found as f64, expected as f64), "sums[{index}] = {found} differs from {expected}");
    }
    Ok(())
}

/// Logits in [-4, 4) where every second sample is classified right, and targets.
pub fn plain_batch(n: usize, classes: usize, seed: u64) -> (Vec<f32>, Vec<i64>) {
    let targets: Vec<i64> = (0..n).map(|sample| (splitmix64(seed + 1, sample as u64) % classes as u64) as i64).collect();
    let mut logits: Vec<f32> = (0..n * classes).map(|i| (8.0 * unit(seed, i) - 4.0) as f32).collect();
    for sample in (0..n).step_by(2) {
        logits[sample * classes + targets[sample] as usize] = 4.5;
    }
    (logits, targets)
}

/// Loss and gradient of row-major f32 logits with `Mean` or `Sum`.
pub fn step(criterion: &mut Criterion, logits: &[f32], targets: &[i64]) -> (f32, Vec<f32>) {
    let mut gradient = vec![0f32; logits.len()];
    let loss = criterion.loss_and_gradient(logits, targets, &mut gradient).unwrap();
    (loss, gradient)
}
