//! The list of conformance cases. Their expectations come from the reference; see `oracle`.

use ols::DType::{self, Bf16, F16, F32, F64, I32, I64, U8};
use ols::{EmptyClass, ErrorKind, Initial, Mode, Options, Reduction, Update};

use super::hex::Hex;
use super::model::{
    Action, Case, CaseBatch, CaseOptions, Expect, Failure, File, Logits, Name, Named, Numbers, Step, Targets, View, splitmix64,
};
use super::oracle;

/// The version of the files' format.
pub const FORMAT: u32 = 1;

const LOGITS: [DType; 4] = [F32, F64, Bf16, F16];

/// What every file says about itself.
const COMMENT: &str = include_str!("comment.txt");

/// All files: their names, and what they hold.
pub fn files() -> Vec<(&'static str, File)> {
    let themes: [(&str, &str, Vec<Case>); 8] = [
        ("sizes", "Every number of classes around the widths of vectors, in every dtype of the logits.", sizes()),
        ("options", "Every initial matrix, policy, reduction and threshold, over several epochs.", options()),
        ("weights", "Class weights, sample weights, the gradient that comes from behind; zeros among them.", weights()),
        ("targets", "Dtypes and offset of targets, ignored samples, two targets with lam.", targets()),
        ("special", "Masked classes, rows that are no distribution, huge and peaked rows, ties.", special()),
        ("layouts", "Views of every kind for inputs and outputs.", layouts()),
        ("epochs", "What happens over time: modes, second passes, take-back, saving, given probabilities.", epochs()),
        ("errors", "Calls that must fail and change nothing.", errors()),
    ];
    let comment: Vec<String> = COMMENT.lines().map(str::to_owned).collect();
    themes
        .into_iter()
        .map(|(name, theme, mut cases)| {
            cases.iter_mut().for_each(oracle::fill);
            (name, File { comment: comment.clone(), format: FORMAT, theme: theme.to_owned(), cases })
        })
        .collect()
}

/// Puts a case together.
struct Builder(Case);

fn case(name: impl Into<String>, why: &str, options: Options) -> Builder {
    let options = CaseOptions::new(&options);
    Builder(Case { name: name.into(), why: why.to_owned(), options, error: None, batches: vec![], steps: vec![] })
}

impl Builder {
    fn batch(mut self, batch: CaseBatch) -> Self {
        self.0.batches.push(batch);
        self
    }

    fn step(mut self, action: Action) -> Self {
        self.0.steps.push(Step { action, expect: Expect::default() });
        self
    }

    /// The last step fails.
    fn fails(mut self, kind: ErrorKind, message: &str) -> Self {
        let message = (!message.is_empty()).then(|| message.to_owned());
        self.0.steps.last_mut().expect("a step").expect.error = Some(Failure { kind: Name(kind), message });
        self
    }

    fn loss_view(&self, batch: usize) -> View {
        match self.0.options.reduction.0 {
            Reduction::None => View::new(&self.0.batches[batch].targets.view.shape),
            Reduction::Mean | Reduction::Sum => View::new(&[]),
        }
    }

    fn grad_view(&self, batch: usize) -> View {
        View::new(&self.0.batches[batch].logits.view.shape)
    }

    /// Loss, gradient and statistics.
    fn forward(self, batch: usize) -> Self {
        self.update(batch, Update::Add)
    }

    fn update(self, batch: usize, update: Update) -> Self {
        let (loss, grad) = (Some(self.loss_view(batch)), Some(self.grad_view(batch)));
        self.step(Action::Forward { batch, update: Name(update), loss, grad, in_place: false })
    }

    fn in_place(self, batch: usize) -> Self {
        let loss = Some(self.loss_view(batch));
        self.step(Action::Forward { batch, update: Name(Update::Add), loss, grad: None, in_place: true })
    }

    /// Statistics alone.
    fn count(self, batch: usize, update: Update) -> Self {
        self.step(Action::Forward { batch, update: Name(update), loss: None, grad: None, in_place: false })
    }

    fn loss(self, batch: usize) -> Self {
        let loss = Some(self.loss_view(batch));
        self.step(Action::Forward { batch, update: Name(Update::Add), loss, grad: None, in_place: false })
    }

    fn grad(self, batch: usize) -> Self {
        let grad = Some(self.grad_view(batch));
        self.step(Action::Forward { batch, update: Name(Update::Add), loss: None, grad, in_place: false })
    }

    fn backward(self, batch: usize) -> Self {
        let grad = self.grad_view(batch);
        self.step(Action::Backward { batch, grad })
    }

    fn accumulate(self, batch: usize, update: Update) -> Self {
        self.step(Action::Accumulate { batch, update: Name(update) })
    }

    fn next_epoch(self) -> Self {
        self.step(Action::NextEpoch {})
    }

    fn mode(self, mode: Mode) -> Self {
        self.step(Action::SetMode { mode: Name(mode) })
    }

    fn alpha(self, alpha: f64) -> Self {
        self.step(Action::SetAlpha { alpha: Hex(alpha) })
    }

    fn soft_labels(self, values: &[f64]) -> Self {
        self.step(Action::SetSoftLabels { values: values.iter().copied().map(Hex).collect() })
    }

    fn save_load(self) -> Self {
        self.step(Action::SaveLoad {})
    }

    fn end(self) -> Case {
        self.0
    }

    /// Creation fails.
    fn refused(mut self, kind: ErrorKind, message: &str) -> Case {
        self.0.error = Some(Failure { kind: Name(kind), message: Some(message.to_owned()) });
        self.0
    }
}

/// Logits in [-8, 8) and i64 targets among the first `among` classes; three of four samples are classified right.
fn batch_among(dtype: DType, shape: &[usize], seed: u64, among: usize) -> CaseBatch {
    let (n, classes, inner) = (shape[0], shape[1], shape.get(2).copied().unwrap_or(1));
    let values: Vec<i64> = (0..n * inner).map(|sample| (splitmix64(seed + 1000, sample as u64) % among as u64) as i64).collect();
    let raised = (0..n * inner)
        .filter(|sample| sample % 4 != 3)
        .map(|sample| (sample / inner * classes + values[sample] as usize) * inner + sample % inner)
        .collect();
    let mut target_shape = shape.to_vec();
    target_shape.remove(1);
    CaseBatch {
        logits: Logits { dtype: Name(dtype), view: View::new(shape), seed, exponent: -4, absolute: false, raised, set: vec![] },
        targets: Targets { dtype: Name(I64), view: View::new(&target_shape), values },
        target_offset: 0,
        sample_weights: None,
        targets2: None,
        lam: None,
        grad_loss: None,
    }
}

fn batch(dtype: DType, shape: &[usize], seed: u64) -> CaseBatch {
    batch_among(dtype, shape, seed, shape[1])
}

/// Probabilities in [0, 1), which need not sum to 1.
fn probabilities(dtype: DType, shape: &[usize], seed: u64) -> CaseBatch {
    let mut batch = batch(dtype, shape, seed);
    (batch.logits.exponent, batch.logits.absolute) = (-8, true);
    batch
}

impl CaseBatch {
    /// One value per sample, in the shape of the targets.
    fn per_sample(&self, dtype: DType, values: &[f64]) -> Option<Numbers> {
        let view = View::new(&self.targets.view.shape);
        let values = (0..view.elements()).map(|sample| Hex(values[sample % values.len()])).collect();
        Some(Numbers { dtype: Name(dtype), view, values })
    }

    fn weighing(mut self, dtype: DType, values: &[f64]) -> Self {
        self.sample_weights = self.per_sample(dtype, values);
        self
    }

    /// The second targets are the first ones, one sample further.
    fn mixed(mut self, dtype: DType, lam: &[f64]) -> Self {
        let mut second = self.targets.clone();
        if !second.values.is_empty() {
            second.values.rotate_left(1);
        }
        self.targets2 = Some(second);
        self.lam = if lam.len() == 1 { scalar(dtype, lam[0]) } else { self.per_sample(dtype, lam) };
        self
    }

    fn grad_loss(mut self, dtype: DType, values: &[f64]) -> Self {
        self.grad_loss = if values.len() == 1 { scalar(dtype, values[0]) } else { self.per_sample(dtype, values) };
        self
    }

    fn target(mut self, sample: usize, value: i64) -> Self {
        self.targets.values[sample] = value;
        self
    }

    fn target_dtype(mut self, dtype: DType, offset: i64) -> Self {
        for targets in [Some(&mut self.targets), self.targets2.as_mut()].into_iter().flatten() {
            targets.dtype = Name(dtype);
            targets.values.iter_mut().for_each(|value| *value += offset);
        }
        self.target_offset = offset;
        self
    }

    fn set(mut self, index: usize, value: f64) -> Self {
        self.logits.set.push((index, Hex(value)));
        self
    }

    /// Sets a whole row of logits of shape (N, K).
    fn row(mut self, sample: usize, values: &[f64]) -> Self {
        let classes = self.logits.view.shape[1];
        for class in 0..classes {
            self = self.set(sample * classes + class, values[class % values.len()]);
        }
        self
    }
}

fn scalar(dtype: DType, value: f64) -> Option<Numbers> {
    Some(Numbers { dtype: Name(dtype), view: View::new(&[]), values: vec![Hex(value)] })
}

fn sizes() -> Vec<Case> {
    let mut cases = vec![];
    for (which, classes) in [2, 3, 7, 8, 15, 16, 17, 31, 33, 100, 1000, 1025].into_iter().enumerate() {
        for dtype in LOGITS {
            let n = if classes >= 1000 { 3 } else { [5, 7, 9][which % 3] };
            cases.push(
                case(format!("k{classes}-{}", dtype.name()), "forward, backward and the next epoch's loss", Options::new(classes))
                    .batch(batch(dtype, &[n, classes], classes as u64))
                    .forward(0)
                    .backward(0)
                    .next_epoch()
                    .update(0, Update::None)
                    .end(),
            );
        }
    }
    for dtype in LOGITS {
        for (n, reduction) in
            [(0, Reduction::Mean), (0, Reduction::None), (1, Reduction::Mean), (1, Reduction::None), (257, Reduction::Mean)]
        {
            let name = format!("n{n}-{}-{}", reduction.name(), dtype.name());
            let why = "an empty batch, a single sample, more samples than a block";
            cases.push(
                case(name, why, Options::new(10).reduction(reduction)).batch(batch(dtype, &[n, 10], 4)).forward(0).next_epoch().end(),
            );
        }
    }
    cases
}

fn options() -> Vec<Case> {
    let mut cases = vec![];
    let classes = 6;
    let matrix = Initial::Matrix((0..36).map(|i| (i * 7 % 11) as f32 / 16.0).collect());
    let initials = [
        ("smoothing", Initial::Smoothing(0.1)),
        ("smoothing-0", Initial::Smoothing(0.0)),
        ("smoothing-1", Initial::Smoothing(1.0)),
        ("smoothing-0.3", Initial::Smoothing(0.3)),
        ("uniform", Initial::Uniform),
        ("zero", Initial::Zero),
        ("one-hot", Initial::OneHot),
        ("matrix", matrix.clone()),
    ];
    for (which, (name, initial)) in initials.into_iter().enumerate() {
        for alpha in [0.0, 0.3, 1.0] {
            cases.push(
                case(
                    format!("initial-{name}-alpha-{alpha}"),
                    "the first epoch's soft labels",
                    Options::new(classes).initial(initial.clone()).alpha(alpha),
                )
                .batch(batch(LOGITS[which % 2], &[5, classes], 20 + which as u64))
                .forward(0)
                .end(),
            );
        }
    }
    // Only three of six classes have samples, so the policy decides about the others.
    for policy in [EmptyClass::Keep, EmptyClass::Uniform, EmptyClass::Initial, EmptyClass::OneHot, EmptyClass::Zero] {
        for momentum in [0.0, 0.75] {
            let options = Options::new(classes).initial(matrix.clone()).empty_class(policy).momentum(momentum).alpha(0.25);
            cases.push(
                case(format!("empty-{}-momentum-{momentum}", policy.name()), "classes without a right answer, over three epochs", options)
                    .batch(batch_among(F32, &[7, classes], 30, 3))
                    .batch(batch_among(F32, &[7, classes], 31, 2))
                    .forward(0)
                    .next_epoch()
                    .forward(1)
                    .next_epoch()
                    .forward(0)
                    .forward(1)
                    .next_epoch()
                    .update(0, Update::None)
                    .end(),
            );
        }
    }
    for min_count in [1, 2, 3, 1000] {
        let options = Options::new(3).min_count(min_count).empty_class(EmptyClass::Uniform);
        let batch = batch(F32, &[8, 3], 35);
        cases.push(
            case(format!("min-count-{min_count}"), "a class with fewer right answers is not measured", options)
                .batch(batch)
                .forward(0)
                .next_epoch()
                .end(),
        );
    }
    for (threshold, momentum) in [(0.88, 0.0), (0.9, 0.0), (0.95, 0.0), (0.95, 0.5), (1.5, 0.0)] {
        let options = Options::new(4).freeze_above(threshold).momentum(momentum).empty_class(EmptyClass::Zero);
        cases.push(
            case(
                format!("freeze-{threshold}-momentum-{momentum}"),
                "0.88 freezes a start of 0.9 at once; 0.9 does not, as 0.9 in f32 is a little less",
                options,
            )
            .batch(batch_among(F32, &[8, 4], 36, 3))
            .forward(0)
            .next_epoch()
            .forward(0)
            .next_epoch()
            .forward(0)
            .end(),
        );
    }
    let half = Options::new(3).initial(Initial::Smoothing(0.5)).freeze_above(0.5);
    cases.push(
        case("freeze-equal", "a class at the threshold is frozen", half).batch(batch(F32, &[8, 3], 38)).forward(0).next_epoch().end(),
    );
    for (name, initial, policy) in [("reference", Initial::Smoothing(0.1), EmptyClass::Zero), ("paper", Initial::Zero, EmptyClass::Uniform)]
    {
        cases.push(
            case(
                format!("preset-{name}"),
                "the options that the preset of this name sets",
                Options::new(5).initial(initial).empty_class(policy),
            )
            .batch(batch_among(F32, &[9, 5], 37, 3))
            .forward(0)
            .next_epoch()
            .forward(0)
            .end(),
        );
    }
    cases
}

fn weights() -> Vec<Case> {
    let mut cases = vec![];
    let class_weights = [1.0, 0.5, 0.0, 0.75, 0.125];
    let sample_weights = [1.0, 0.5, 0.0, 2.0, 0.25, 1.0, 3.0];
    for dtype in LOGITS {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let options = Options::new(5).reduction(reduction);
            let weighted = options.clone().class_weights(class_weights.to_vec());
            let name = |kind: &str| format!("{kind}-{}-{}", reduction.name(), dtype.name());
            let plain = batch(dtype, &[7, 5], 40);
            let both = plain.clone().weighing(F32, &sample_weights);
            cases.push(case(name("plain"), "no weights", options.clone()).batch(plain.clone()).forward(0).end());
            cases.push(case(name("class"), "class weights", weighted.clone()).batch(plain.clone()).forward(0).backward(0).end());
            cases.push(case(name("both"), "class and sample weights", weighted.clone()).batch(both.clone()).forward(0).backward(0).end());
            let scaled = both.clone().grad_loss(F32, &[1024.0]);
            cases.push(
                case(name("scaled"), "a scalar grad_loss, as loss scaling gives it", weighted.clone())
                    .batch(scaled)
                    .forward(0)
                    .backward(0)
                    .end(),
            );
            if reduction == Reduction::None {
                let scaled = both.grad_loss(F64, &[1.0, -2.0, 0.5, 0.0, 8.0]);
                cases.push(case(name("each"), "a grad_loss per sample", weighted.clone()).batch(scaled).forward(0).backward(0).end());
            }
        }
    }
    let wide = batch(F32, &[6, 5], 41).weighing(F64, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    cases.push(case("f64-weights", "f64 weights with f32 logits", Options::new(5)).batch(wide).forward(0).end());
    let narrow = batch(F64, &[6, 5], 42).weighing(F32, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).grad_loss(F32, &[3.0]);
    cases.push(
        case("f32-weights-f64-logits", "f32 weights with f64 logits: 0.1 is what it is in f32", Options::new(5))
            .batch(narrow)
            .forward(0)
            .end(),
    );
    let why = "the divisor is 0: loss and gradient are 0, and the statistics go on";
    let options = Options::new(3).class_weights(vec![0.0, 0.0, 1.0]);
    cases.push(case("divisor-0", why, options.clone()).batch(batch_among(F32, &[5, 3], 43, 2)).forward(0).next_epoch().end());
    cases.push(
        case("divisor-0-sum", "a sum has no divisor", options.reduction(Reduction::Sum))
            .batch(batch_among(F32, &[5, 3], 43, 2))
            .forward(0)
            .end(),
    );
    let none = batch(F32, &[5, 3], 44).weighing(F32, &[0.0]);
    cases.push(case("nobody-weighs", "all sample weights are 0", Options::new(3)).batch(none).forward(0).next_epoch().end());
    let heavy = Options::new(3).class_weights(vec![1e3, 2.5, 1e-3]);
    cases.push(case("heavy", "class weights above 1", heavy).batch(batch(F32, &[5, 3], 45)).forward(0).end());
    // Without the scale inside, p < 2^-25 would be 0 in f16 before it is multiplied by 65536.
    let tiny = batch(F16, &[3, 4], 46).row(0, &[10.0, -8.0, -7.5, -8.5]).row(1, &[-9.0, 9.0, -9.5, -8.0]).grad_loss(F32, &[65536.0]);
    let tiny = tiny.target(0, 0).target(1, 1);
    cases.push(
        case("f16-underflow", "factor and grad_loss are multiplied before the one rounding", Options::new(4).alpha(1.0))
            .batch(tiny)
            .forward(0)
            .backward(0)
            .end(),
    );
    cases
}

fn targets() -> Vec<Case> {
    let mut cases = vec![];
    for (which, dtype) in [I64, I32, U8].into_iter().enumerate() {
        for offset in [0, 1] {
            let batch = batch(LOGITS[which], &[6, 7], 50).target_dtype(dtype, offset);
            let mixed = batch.clone().mixed(F32, &[0.75, 0.5, 0.25, 0.0, 1.0, 0.375]);
            cases.push(
                case(format!("{}-offset-{offset}", dtype.name()), "the class is target - offset", Options::new(7))
                    .batch(batch)
                    .batch(mixed)
                    .forward(0)
                    .forward(1)
                    .next_epoch()
                    .end(),
            );
        }
    }
    let negative = batch(F32, &[4, 5], 51).target_dtype(I32, -3);
    cases.push(case("offset-negative", "labels that begin at -3", Options::new(5)).batch(negative).forward(0).end());
    let wide = batch(F32, &[3, 300], 52).target_dtype(U8, 0).target(0, 255).target(1, 0).target(2, 254);
    cases.push(case("u8-300-classes", "u8 targets of 300 classes", Options::new(300)).batch(wide).forward(0).end());
    for dtype in LOGITS {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let options = Options::new(4).reduction(reduction);
            let name = |kind: &str| format!("{kind}-{}-{}", reduction.name(), dtype.name());
            let some = batch(dtype, &[7, 4], 53).target(1, -100).target(6, -100);
            let all = batch(dtype, &[3, 4], 54).target(0, -100).target(1, -100).target(2, -100);
            cases.push(
                case(name("ignored"), "some samples are ignored, then all", options.clone())
                    .batch(some)
                    .batch(all)
                    .forward(0)
                    .forward(1)
                    .backward(1)
                    .next_epoch()
                    .end(),
            );
            let mixed = batch(dtype, &[7, 4], 55).mixed(F32, &[0.75, 0.5, 0.25, 0.0, 1.0, 0.375, 0.625]);
            let one_lam = batch(dtype, &[7, 4], 56).mixed(F64, &[0.3]);
            cases.push(
                case(name("mixed"), "two targets: a lam per sample, one lam for all", options)
                    .batch(mixed)
                    .batch(one_lam)
                    .forward(0)
                    .forward(1)
                    .backward(1)
                    .next_epoch()
                    .end(),
            );
        }
    }
    for (ignore, dtype, offset) in [(255, U8, 0), (0, U8, 1), (-1, I32, 0), (3, I64, 0), (0, I64, 0)] {
        let mut ignoring = batch(F32, &[6, 4], 57).target_dtype(dtype, offset);
        ignoring = ignoring.target(2, ignore).target(4, ignore);
        cases.push(
            case(
                format!("ignore-{ignore}-{}-offset-{offset}", dtype.name()),
                "the ignore index is compared before the offset is subtracted; it may be a class",
                Options::new(4).ignore_index(ignore),
            )
            .batch(ignoring)
            .forward(0)
            .next_epoch()
            .end(),
        );
    }
    let mut second = batch(F32, &[6, 4], 58).mixed(F32, &[0.5, 1.0, 0.0, 0.25, 0.75, 0.5]);
    second.targets2.as_mut().unwrap().values[1] = -100;
    second = second.target(2, -100);
    let weighted = second.clone().weighing(F32, &[1.0, 1.0, 1.0, 0.0, 2.0, 0.5]);
    cases.push(
        case(
            "one-of-two-ignored",
            "a sample takes no part when one of its targets is the ignore index, whatever lam",
            Options::new(4).class_weights(vec![1.0, 0.5, 0.25, 0.0]),
        )
        .batch(second)
        .batch(weighted)
        .forward(0)
        .forward(1)
        .next_epoch()
        .end(),
    );
    let mut larger = batch(F32, &[4, 3], 59).mixed(F32, &[0.5, 0.49, 0.51, 0.5]);
    larger.targets.values = vec![0, 0, 0, 1];
    larger.targets2.as_mut().unwrap().values = vec![1, 1, 1, 0];
    larger = larger.row(0, &[2.0, 1.0, 0.0]).row(1, &[1.0, 2.0, 0.0]).row(2, &[2.0, 1.0, 0.0]).row(3, &[2.0, 1.0, 0.0]);
    cases.push(
        case("larger-lam", "the statistics mean the target with the larger lam, the first one at 1/2", Options::new(3))
            .batch(larger)
            .forward(0)
            .end(),
    );
    let duplicates = batch_among(F32, &[33, 5], 60, 1);
    cases.push(
        case("duplicate-labels", "many samples of one class in a batch", Options::new(5)).batch(duplicates).forward(0).next_epoch().end(),
    );
    cases
}

fn special() -> Vec<Case> {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut cases = vec![];
    for dtype in LOGITS {
        for classes in [3, 8, 17, 33] {
            let name = |kind: &str| format!("{kind}-k{classes}-{}", dtype.name());
            let fresh = |n: usize, seed: u64| batch(dtype, &[n, classes], seed);
            let each = Options::new(classes).reduction(Reduction::None);
            let last = classes - 1;

            let masked =
                fresh(4, 70).set(0, -inf).target(0, 1).set(classes + last, -inf).target(1, 0).set(2 * classes + 1, -inf).target(2, 1);
            cases.push(
                case(name("masked"), "-inf on a class: +inf loss where q > 0 on it", each.clone())
                    .batch(masked.clone())
                    .forward(0)
                    .backward(0)
                    .next_epoch()
                    .end(),
            );
            cases.push(
                case(name("masked-alpha-1"), "with alpha 1 only the target's own mask costs +inf", each.clone().alpha(1.0))
                    .batch(masked.clone())
                    .forward(0)
                    .end(),
            );
            cases.push(
                case(name("masked-one-hot"), "q == 0 on the mask: finite", each.clone().initial(Initial::OneHot))
                    .batch(masked)
                    .forward(0)
                    .end(),
            );

            let nan_row = fresh(5, 71).set(last, nan).set(classes + last, inf).row(2, &[-inf]).set(3 * classes, -inf);
            cases.push(
                case(name("not-finite"), "NaN, +inf, nothing but -inf: NaN in loss and gradient, nothing in the statistics", each.clone())
                    .batch(nan_row.clone())
                    .forward(0)
                    .next_epoch()
                    .end(),
            );
            let ignored = nan_row.clone().target(0, -100).target(1, -100).target(2, -100);
            cases.push(
                case(
                    name("not-finite-mean"),
                    "a mean with a NaN row is NaN; rows of ignored samples may hold anything",
                    Options::new(classes),
                )
                .batch(nan_row.clone())
                .batch(ignored)
                .forward(0)
                .forward(1)
                .next_epoch()
                .forward(1)
                .end(),
            );
            let weightless = nan_row.weighing(F32, &[0.0, 0.0, 0.0, 1.0, 1.0]);
            cases.push(
                case(name("not-finite-weightless"), "so may rows of samples that weigh 0", Options::new(classes))
                    .batch(weightless)
                    .forward(0)
                    .end(),
            );

            let big = if dtype == F16 { 32768.0 } else { 2f64.powi(100) };
            let huge = fresh(4, 72)
                .set(1, 8192.0)
                .target(0, 1)
                .set(classes, 8192.0)
                .target(1, 1)
                .row(2, &[-big])
                .set(2 * classes + 1, big)
                .target(2, 1);
            let huge = huge.row(3, &[big]).target(3, 0);
            cases.push(
                case(name("huge"), "logits of 2^13 and 2^100 (2^15 in f16)", each.clone())
                    .batch(huge)
                    .forward(0)
                    .backward(0)
                    .next_epoch()
                    .end(),
            );

            let ties = fresh(5, 73).row(0, &[1.0]).target(0, 0).row(1, &[1.0]).target(1, 1).row(2, &[-0.0, 0.0]).target(2, 0);
            let ties =
                ties.row(3, &[-0.0, 0.0]).target(3, 1).row(4, &[-1.0]).set(4 * classes + 1, -0.0).set(4 * classes + last, 0.0).target(4, 1);
            cases.push(
                case(name("ties"), "the first index wins a tie; -0 equals +0", each.clone()).batch(ties).forward(0).next_epoch().end(),
            );
        }
    }
    for dtype in LOGITS {
        for classes in [100, 1025] {
            let peaked =
                batch(dtype, &[2, classes], 74).row(0, &[0.0]).set(7, 17.0).target(0, 7).row(1, &[0.0]).set(classes + 7, 17.0).target(1, 8);
            cases.push(
                case(
                    format!("peaked-k{classes}-{}", dtype.name()),
                    "one logit 17 above equal ones, right and wrong",
                    Options::new(classes).alpha(1.0).reduction(Reduction::None),
                )
                .batch(peaked)
                .forward(0)
                .end(),
            );
        }
    }
    cases
}

fn layouts() -> Vec<Case> {
    let mut cases = vec![];
    for (which, dtype) in LOGITS.into_iter().enumerate() {
        for reduction in [Reduction::Mean, Reduction::None] {
            let (n, classes, inner) = (3, 5, 4);
            let options = Options::new(classes).reduction(reduction);
            let name = |kind: &str| format!("{kind}-{}-{}", reduction.name(), dtype.name());
            let image = batch(dtype, &[n, classes, inner], 80 + which as u64);
            let with = |logits: View| {
                let mut batch = image.clone();
                batch.logits.view = logits;
                batch
            };
            let flat = batch(dtype, &[n, classes], 84);
            let flat_with = |logits: View| {
                let mut batch = flat.clone();
                batch.logits.view = logits;
                batch
            };
            let shape = [n, classes, inner];
            let views = [
                ("inner", with(View::new(&shape))),
                ("class-last", with(View::strided(&shape, &[20, 1, 5]))),
                ("class-first", with(View::strided(&shape, &[4, 12, 1]))),
                ("padded-inner", with(View::strided(&shape, &[37, 7, 1]).padded(3, 2))),
                ("padded-rows", flat_with(View::strided(&[n, classes], &[9, 1]).padded(1, 6))),
                ("columns", flat_with(View::strided(&[n, classes], &[1, 3]))),
                ("every-second", flat_with(View::strided(&[n, classes], &[11, 2]))),
                ("inner-1", with_shape(&flat, &[n, classes, 1])),
            ];
            for (kind, batch) in views {
                let view = batch.logits.view.clone();
                let loss = match reduction {
                    Reduction::None => View::new(&batch.targets.view.shape),
                    _ => View::new(&[]),
                };
                // The gradient in the layout of the logits, then row-major, then in place.
                let forward = |grad: Option<View>| Action::Forward {
                    batch: 0,
                    update: Name(Update::Add),
                    loss: Some(loss.clone()),
                    in_place: grad.is_none(),
                    grad,
                };
                cases.push(
                    case(name(kind), "logits and gradient in this layout; a row-major gradient; in place", options.clone())
                        .batch(batch)
                        .step(forward(Some(view)))
                        .forward(0)
                        .step(forward(None))
                        .backward(0)
                        .next_epoch()
                        .end(),
                );
            }
            // Inputs may run backwards or repeat.
            let backwards = with(View::strided(&shape, &[-20, -4, -1]));
            let mut repeated = with(View::strided(&shape, &[0, 4, 1]));
            repeated.logits.raised.clear();
            repeated.targets.view = View::strided(&[n, inner], &[0, 1]);
            let first = repeated.targets.values[..inner].to_vec();
            repeated.targets.values = first.repeat(n);
            repeated = repeated.weighing(F32, &[0.5]);
            repeated.sample_weights.as_mut().unwrap().view = View::strided(&[n, inner], &[0, 0]);
            cases.push(case(name("backwards"), "negative strides of the logits", options.clone()).batch(backwards).forward(0).end());
            cases.push(
                case(name("repeated"), "strides of 0: every image is the same one", options.clone()).batch(repeated).forward(0).end(),
            );
            // Everything else with strides of its own.
            let mut all = image.clone().weighing(F32, &[1.0, 0.5, 0.0, 2.0, 0.25]).mixed(F64, &[0.75, 0.5, 0.25, 0.0, 1.0]).target(2, -100);
            if reduction == Reduction::None {
                all = all.grad_loss(F32, &[1.0, -2.0, 0.5]);
                all.grad_loss.as_mut().unwrap().view = View::strided(&[n, inner], &[2, 7]);
            }
            all.targets.view = View::strided(&[n, inner], &[1, 3]);
            all.targets2.as_mut().unwrap().view = View::strided(&[n, inner], &[9, 2]).padded(1, 1);
            all.sample_weights.as_mut().unwrap().view = View::strided(&[n, inner], &[-4, -1]);
            all.lam.as_mut().unwrap().view = View::strided(&[n, inner], &[4, -1]);
            let loss = if reduction == Reduction::None { View::strided(&[n, inner], &[2, 6]).padded(2, 2) } else { View::new(&[]) };
            let grad = Some(View::strided(&shape, &[60, 12, -3]));
            cases.push(
                case(name("all-strided"), "targets, weights, lam, grad_loss, loss and gradient with strides of their own", options)
                    .batch(all)
                    .step(Action::Forward { batch: 0, update: Name(Update::Add), loss: Some(loss), grad, in_place: false })
                    .backward(0)
                    .end(),
            );
        }
    }
    cases
}

fn with_shape(batch: &CaseBatch, shape: &[usize; 3]) -> CaseBatch {
    let mut batch = batch.clone();
    batch.logits.view = View::new(shape);
    batch.targets.view = View::new(&[shape[0], shape[2]]);
    batch
}

fn epochs() -> Vec<Case> {
    let mut cases = vec![];
    for dtype in LOGITS {
        let name = |kind: &str| format!("{kind}-{}", dtype.name());
        let classes = 9;
        let with_batches = |kind: &str, why: &str, options: Options| {
            let mut builder = case(name(kind), why, options);
            for seed in 90..93 {
                builder = builder.batch(batch(dtype, &[11, classes], seed));
            }
            builder
        };
        let options = Options::new(classes);
        cases.push(
            with_batches("three-epochs", "three batches in each of three epochs", options.clone())
                .forward(0)
                .forward(1)
                .forward(2)
                .next_epoch()
                .forward(2)
                .forward(0)
                .forward(1)
                .next_epoch()
                .in_place(1)
                .forward(0)
                .next_epoch()
                .loss(0)
                .grad(1)
                .count(2, Update::Add)
                .end(),
        );
        cases.push(
            with_batches(
                "modes",
                "in eval mode a forward changes no state; the end of an epoch works all the same",
                options.clone().mode(Mode::Eval),
            )
            .forward(0)
            .mode(Mode::Train)
            .forward(1)
            .mode(Mode::Eval)
            .forward(2)
            .next_epoch()
            .forward(0)
            .next_epoch()
            .mode(Mode::Train)
            .forward(0)
            .end(),
        );
        cases.push(
            with_batches(
                "twice",
                "ending an epoch twice, or after evaluation alone, keeps the soft labels whatever the policy",
                options.clone().empty_class(EmptyClass::Zero),
            )
            .forward(0)
            .next_epoch()
            .next_epoch()
            .mode(Mode::Eval)
            .forward(1)
            .next_epoch()
            .loss(0)
            .end(),
        );
        cases.push(
            with_batches("second-pass", "a second pass with no update, and one that was counted and is taken back", options.clone())
                .forward(0)
                .update(0, Update::None)
                .forward(1)
                .count(1, Update::TakeBack)
                .forward(2)
                .next_epoch()
                .loss(1)
                .end(),
        );
        cases.push(
            with_batches("take-back", "add, take back, also in eval mode and with outputs", options.clone())
                .forward(0)
                .forward(1)
                .update(0, Update::TakeBack)
                .mode(Mode::Eval)
                .count(1, Update::TakeBack)
                .mode(Mode::Train)
                .count(1, Update::TakeBack)
                .fails(ErrorKind::InvalidState, "")
                .forward(2)
                .count(1, Update::TakeBack)
                .fails(ErrorKind::InvalidState, "")
                .next_epoch()
                .end(),
        );
        let poisoned = batch(dtype, &[6, classes], 101).set(3, f64::NAN).set(classes, f64::INFINITY);
        cases.push(
            case(name("take-back-skipped"), "a row that was skipped is taken back too", options.clone())
                .batch(poisoned)
                .batch(batch(dtype, &[5, classes], 102))
                .forward(0)
                .forward(1)
                .count(0, Update::TakeBack)
                .forward(0)
                .forward(0)
                .count(0, Update::TakeBack)
                .next_epoch()
                .end(),
        );
        let soft_label = Options::new(classes)
            .momentum(0.5)
            .min_count(2)
            .alpha(0.25)
            .class_weights((1..=9).map(|w| f64::from(w) / 8.0).collect::<Vec<_>>());
        cases.push(
            with_batches(
                "resume",
                "saved and loaded in mid-epoch, with options of its own",
                soft_label.initial(Initial::Uniform).empty_class(EmptyClass::Initial),
            )
            .forward(0)
            .save_load()
            .forward(1)
            .next_epoch()
            .save_load()
            .alpha(0.75)
            .forward(2)
            .save_load()
            .forward(0)
            .next_epoch()
            .save_load()
            .loss(1)
            .end(),
        );
        cases.push(
            with_batches("alpha", "alpha by a schedule", options.clone())
                .forward(0)
                .alpha(0.25)
                .forward(0)
                .next_epoch()
                .alpha(0.0)
                .loss(1)
                .alpha(1.0)
                .loss(1)
                .end(),
        );
        // Probabilities: those of the second batch include a row that is not finite and one that takes no part.
        let given = probabilities(dtype, &[7, classes], 94);
        let odd = probabilities(dtype, &[7, classes], 95)
            .set(2, f64::NAN)
            .set(classes, 1.0)
            .set(2 * classes, 7.0)
            .target(2, -100)
            .row(5, &[0.0])
            .target(5, 0);
        let mixed = probabilities(dtype, &[7, classes], 96).mixed(F32, &[0.25, 0.75, 0.5, 1.0, 0.0]).weighing(F32, &[1.0, 0.0, 2.0]);
        cases.push(
            case(name("accumulate"), "statistics from given probabilities obey mode and update as a forward does", options.clone())
                .batch(given)
                .batch(odd)
                .batch(mixed)
                .accumulate(0, Update::Add)
                .accumulate(1, Update::Add)
                .accumulate(2, Update::Add)
                .accumulate(0, Update::None)
                .mode(Mode::Eval)
                .accumulate(1, Update::Add)
                .accumulate(0, Update::TakeBack)
                .mode(Mode::Train)
                .accumulate(0, Update::Add)
                .next_epoch()
                .loss(0)
                .accumulate(1, Update::Add)
                .next_epoch()
                .end(),
        );
        let image = probabilities(dtype, &[2, 4, 5], 97);
        cases.push(
            case(name("accumulate-inner"), "probabilities of shape (N, K, inner)", Options::new(4))
                .batch(image)
                .accumulate(0, Update::Add)
                .next_epoch()
                .end(),
        );
    }
    let identity: Vec<f64> = (0..16).map(|i| f64::from(i % 5 == 0)).collect();
    let quarters: Vec<f64> = (0..16).map(|i| f64::from(i % 4) * 0.25).collect();
    cases.push(
        case(
            "set-soft-labels",
            "soft labels of the caller's; rows need not sum to 1",
            Options::new(4).empty_class(EmptyClass::Initial).momentum(0.5),
        )
        .batch(batch_among(F32, &[6, 4], 98, 2))
        .soft_labels(&identity)
        .forward(0)
        .soft_labels(&quarters)
        .forward(0)
        .next_epoch()
        .forward(0)
        .save_load()
        .next_epoch()
        .end(),
    );
    let zeros = probabilities(F32, &[2, 3], 99).row(0, &[0.0]).target(0, 0).row(1, &[0.0, 0.5, 0.25]).target(1, 1);
    cases.push(
        case("zero-rows", "a row of zeros counts, but its class is not measured", Options::new(3).empty_class(EmptyClass::Uniform))
            .batch(zeros)
            .accumulate(0, Update::Add)
            .next_epoch()
            .end(),
    );
    let infinite = probabilities(F32, &[4, 3], 103).set(1, f64::INFINITY).set(3, f64::NEG_INFINITY).set(6, f64::NAN).set(7, 7.0);
    cases.push(
        case(
            "accumulate-not-finite",
            "a row with any entry that is not finite is skipped and counted, whatever else it holds",
            Options::new(3),
        )
        .batch(infinite)
        .accumulate(0, Update::Add)
        .next_epoch()
        .end(),
    );
    let half = probabilities(F32, &[4, 3], 100)
        .row(0, &[1.0, 0.5 * 2f64.powi(-30), 1.5 * 2f64.powi(-30)])
        .row(1, &[0.5, 2.5 * 2f64.powi(-30), 2f64.powi(-40)])
        .row(2, &[0.25, 0.0, 1.25 * 2f64.powi(-30)])
        .row(3, &[0.125, -0.0, 2f64.powi(-31)])
        .target(0, 0)
        .target(1, 0)
        .target(2, 0)
        .target(3, 0);
    cases.push(
        case("half-to-even", "each probability is rounded once to 2^-30, half to even", Options::new(3))
            .batch(half)
            .accumulate(0, Update::Add)
            .next_epoch()
            .end(),
    );
    cases
}

fn errors() -> Vec<Case> {
    use ErrorKind::{InvalidArgument, InvalidShape, TargetOutOfRange};
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let create =
        |name: &str, options: Options, kind: ErrorKind, message: &str| case(name, "cannot be created", options).refused(kind, message);
    let four = || Options::new(4);
    let matrix = |value: f32| Initial::Matrix((0..16).map(|i| if i == 6 { value } else { 0.25 }).collect());
    let weights = |value: f64| vec![1.0, 1.0, value, 1.0];
    let mut cases = vec![
        create("no-classes", Options::new(0), InvalidArgument, "num_classes = 0"),
        create("one-class", Options::new(1), InvalidArgument, "num_classes = 1"),
        create("alpha-negative", four().alpha(-0.1), InvalidArgument, "alpha = "),
        create("alpha-above-1", four().alpha(1.5), InvalidArgument, "alpha = 1.5"),
        create("alpha-nan", four().alpha(nan), InvalidArgument, "alpha = "),
        create("smoothing-above-1", four().initial(Initial::Smoothing(1.5)), InvalidArgument, "smoothing = 1.5"),
        create("smoothing-negative", four().initial(Initial::Smoothing(-0.5)), InvalidArgument, "smoothing = -0.5"),
        create("smoothing-nan", four().initial(Initial::Smoothing(nan)), InvalidArgument, "smoothing = "),
        create("momentum-1", four().momentum(1.0), InvalidArgument, "momentum = 1"),
        create("momentum-negative", four().momentum(-0.5), InvalidArgument, "momentum = -0.5"),
        create("momentum-nan", four().momentum(nan), InvalidArgument, "momentum = "),
        create("min-count-0", four().min_count(0), InvalidArgument, "min_count = 0"),
        create("weight-negative", four().class_weights(weights(-1.0)), InvalidArgument, "class_weights[2] = -1"),
        create("weight-nan", four().class_weights(weights(nan)), InvalidArgument, "class_weights[2] = "),
        create("weight-inf", four().class_weights(weights(inf)), InvalidArgument, "class_weights[2] = "),
        create("weights-too-few", four().class_weights(vec![1.0; 3]), InvalidShape, "class_weights"),
        create("matrix-negative", four().initial(matrix(-0.5)), InvalidArgument, "initial_soft_labels[1, 2] = -0.5"),
        create("matrix-nan", four().initial(matrix(f32::NAN)), InvalidArgument, "initial_soft_labels[1, 2] = "),
        create("matrix-inf", four().initial(matrix(f32::INFINITY)), InvalidArgument, "initial_soft_labels[1, 2] = "),
        create("matrix-too-small", four().initial(Initial::Matrix(vec![0.5; 15])), InvalidShape, "initial_soft_labels"),
    ];
    // A good batch before and after, so that there is a state to keep.
    let good = batch(F32, &[4, 4], 110);
    let bad = [
        ("target-too-large", good.clone().target(2, 7), TargetOutOfRange, "target[2] = 7"),
        ("target-k", good.clone().target(1, 4), TargetOutOfRange, "target[1] = 4"),
        ("target-negative", good.clone().target(3, -1), TargetOutOfRange, "target[3] = -1"),
        ("target-0-offset-1", good.clone().target_dtype(I64, 1).target(2, 0), TargetOutOfRange, "target[2] = 0"),
        ("target-extreme", good.clone().target_dtype(I64, 1).target(2, i64::MIN), TargetOutOfRange, "target[2] = -9223372036854775808"),
        ("target-u8", good.clone().target_dtype(U8, 0).target(0, 156), TargetOutOfRange, "target[0] = 156"),
        ("target-i32", good.clone().target_dtype(I32, 0).target(0, -99), TargetOutOfRange, "target[0] = -99"),
        ("target-of-no-weight", good.clone().weighing(F32, &[1.0, 0.0]).target(1, 4), TargetOutOfRange, "target[1] = 4"),
        ("weight-negative", good.clone().weighing(F32, &[1.0, -1.0]), InvalidArgument, "sample_weights[1] = -1"),
        ("weight-nan", good.clone().weighing(F64, &[1.0, nan]), InvalidArgument, "sample_weights[1] = "),
        ("weight-inf", good.clone().weighing(F32, &[1.0, inf]), InvalidArgument, "sample_weights[1] = "),
        (
            "weight-of-ignored",
            good.clone().weighing(F32, &[1.0, -1.0]).target(1, -100).target(3, -100),
            InvalidArgument,
            "sample_weights[1] = -1",
        ),
        ("lam-above-1", good.clone().mixed(F32, &[0.5, 0.5, 1.5]), InvalidArgument, "lam[2] = 1.5"),
        ("lam-negative", good.clone().mixed(F64, &[0.5, 0.5, -0.25]), InvalidArgument, "lam[2] = -0.25"),
        ("lam-nan", good.clone().mixed(F32, &[nan]), InvalidArgument, "lam"),
        ("lam-of-ignored", good.clone().mixed(F32, &[0.5, 2.0]).target(1, -100).target(3, -100), InvalidArgument, "lam[1] = 2"),
        ("grad-loss-each", good.clone().grad_loss(F32, &[1.0, 2.0]), InvalidShape, "grad_loss"),
    ];
    for (name, batch, kind, message) in bad {
        cases.push(
            case(format!("forward-{name}"), "a batch that is refused as a whole: outputs and state stay as they are", four())
                .batch(good.clone())
                .batch(batch)
                .forward(0)
                .forward(1)
                .fails(kind, message)
                .backward(1)
                .fails(kind, message)
                .forward(0)
                .next_epoch()
                .end(),
        );
    }
    let mut second = good.clone().mixed(F32, &[0.5, 0.25]);
    second.targets2.as_mut().unwrap().values[3] = 9;
    cases.push(
        case("forward-target2-too-large", "a second target that is no class, also where lam is 1", four())
            .batch(good.clone())
            .batch(second)
            .forward(0)
            .forward(1)
            .fails(TargetOutOfRange, "[3] = 9")
            .end(),
    );
    let image = batch(F32, &[2, 4, 3], 111).target(4, 9);
    cases.push(
        case("forward-target-inner", "the message says where", four())
            .batch(image)
            .forward(0)
            .fails(TargetOutOfRange, "target[1, 1] = 9")
            .end(),
    );
    let above = probabilities(F32, &[3, 4], 112).set(6, 1.5);
    let below = probabilities(F32, &[3, 4], 113).set(11, -0.25);
    cases.push(
        case("accumulate-outside", "a probability outside [0, 1]", four())
            .batch(probabilities(F32, &[3, 4], 114))
            .batch(above)
            .batch(below)
            .accumulate(0, Update::Add)
            .accumulate(1, Update::Add)
            .fails(InvalidArgument, "logits[1, 2] = 1.5")
            .accumulate(2, Update::Add)
            .fails(InvalidArgument, "logits[2, 3] = -0.25")
            .end(),
    );
    let mut labels = vec![0.25; 16];
    labels[9] = -1.0;
    let mut infinite = vec![0.25; 16];
    infinite[0] = inf;
    cases.push(
        case("setters", "settings that are refused", four())
            .batch(good)
            .forward(0)
            .soft_labels(&labels)
            .fails(InvalidArgument, "soft_labels[2, 1] = -1")
            .soft_labels(&infinite)
            .fails(InvalidArgument, "soft_labels[0, 0] = ")
            .alpha(2.0)
            .fails(InvalidArgument, "alpha = 2")
            .alpha(nan)
            .fails(InvalidArgument, "alpha = ")
            .forward(0)
            .end(),
    );
    cases
}
