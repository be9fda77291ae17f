//! What a conformance case is: options, batches, and steps with what must come of them. The files' `comment` explains each field.

use ols::reference::Samples;
use ols::{DType, EmptyClass, ErrorKind, Initial, Mode, Options, Reduction, Report, Update};
use serde::{Deserialize, Serialize};

use super::hex::Hex;

/// A file of `tests/vectors`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub comment: Vec<String>,
    pub format: u32,
    pub theme: String,
    pub cases: Vec<Case>,
}

/// One life of a criterion.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub why: String,
    pub options: CaseOptions,
    /// The criterion cannot be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<CaseBatch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseOptions {
    pub classes: usize,
    pub alpha: Hex,
    pub initial: CaseInitial,
    pub empty_class: Name<EmptyClass>,
    pub min_count: i64,
    pub momentum: Hex,
    pub freeze_above: Option<Hex>,
    pub class_weights: Option<Vec<Hex>>,
    pub ignore_index: i64,
    pub reduction: Name<Reduction>,
    pub mode: Name<Mode>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseInitial {
    Smoothing(Hex),
    Uniform,
    Zero,
    OneHot,
    Matrix(Vec<Hex>),
}

impl CaseOptions {
    pub fn new(options: &Options) -> Self {
        Self {
            classes: options.classes,
            alpha: Hex(options.alpha),
            initial: match &options.initial {
                Initial::Smoothing(eps) => CaseInitial::Smoothing(Hex(*eps)),
                Initial::Uniform => CaseInitial::Uniform,
                Initial::Zero => CaseInitial::Zero,
                Initial::OneHot => CaseInitial::OneHot,
                Initial::Matrix(matrix) => CaseInitial::Matrix(matrix.iter().map(|&value| Hex(value.into())).collect()),
            },
            empty_class: Name(options.empty_class),
            min_count: options.min_count,
            momentum: Hex(options.momentum),
            freeze_above: options.freeze_above.map(Hex),
            class_weights: options.class_weights.as_ref().map(|weights| weights.iter().copied().map(Hex).collect()),
            ignore_index: options.ignore_index,
            reduction: Name(options.reduction),
            mode: Name(options.mode),
        }
    }

    pub fn options(&self) -> Options {
        let initial = match &self.initial {
            CaseInitial::Smoothing(eps) => Initial::Smoothing(eps.0),
            CaseInitial::Uniform => Initial::Uniform,
            CaseInitial::Zero => Initial::Zero,
            CaseInitial::OneHot => Initial::OneHot,
            CaseInitial::Matrix(matrix) => Initial::Matrix(matrix.iter().map(|value| value.0 as f32).collect()),
        };
        Options::new(self.classes)
            .alpha(self.alpha.0)
            .initial(initial)
            .empty_class(self.empty_class.0)
            .min_count(self.min_count)
            .momentum(self.momentum.0)
            .freeze_above(self.freeze_above.map(|threshold| threshold.0))
            .class_weights(self.class_weights.as_ref().map(|weights| weights.iter().map(|weight| weight.0).collect::<Vec<_>>()))
            .ignore_index(self.ignore_index)
            .reduction(self.reduction.0)
            .mode(self.mode.0)
    }
}

/// Where the elements of a tensor lie in a block of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    pub shape: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<isize>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl View {
    /// A row-major view of memory of its own.
    pub fn new(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), strides: None, offset: 0, length: None }
    }

    /// A view with these steps, in a block that is just long enough.
    pub fn strided(shape: &[usize], strides: &[isize]) -> Self {
        let reach = |sign: isize| -> usize {
            shape.iter().zip(strides).map(|(&size, &stride)| size.saturating_sub(1) * (stride * sign).max(0) as usize).sum()
        };
        Self { shape: shape.to_vec(), strides: Some(strides.to_vec()), offset: reach(-1), length: Some(reach(-1) + reach(1) + 1) }
    }

    /// The same, with unused elements before and behind.
    pub fn padded(mut self, before: usize, behind: usize) -> Self {
        self.length = Some(self.length() + before + behind);
        self.offset += before;
        self.strides = Some(self.strides());
        self
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of the block of memory.
    pub fn length(&self) -> usize {
        self.length.unwrap_or_else(|| self.elements())
    }

    pub fn strides(&self) -> Vec<isize> {
        self.strides
            .clone()
            .unwrap_or_else(|| (0..self.shape.len()).map(|d| self.shape[d + 1..].iter().product::<usize>() as isize).collect())
    }

    /// For each element in row-major order: its place in the block, and its number where a dimension of stride 0 counts as index 0.
    fn walk(&self) -> Vec<(usize, u64)> {
        let strides = self.strides();
        (0..self.elements())
            .map(|flat| {
                let (mut rest, mut place, mut number, mut step) = (flat, self.offset as isize, 0, 1);
                for d in (0..self.shape.len()).rev() {
                    let index = rest % self.shape[d];
                    rest /= self.shape[d];
                    place += index as isize * strides[d];
                    number += if strides[d] == 0 { 0 } else { index * step };
                    step *= self.shape[d];
                }
                (place as usize, number as u64)
            })
            .collect()
    }

    /// The place of each element in the block, in row-major order.
    pub fn positions(&self) -> Vec<usize> {
        self.walk().into_iter().map(|(position, _)| position).collect()
    }
}

/// Logits, by formula.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logits {
    pub dtype: Name<DType>,
    pub view: View,
    pub seed: u64,
    pub exponent: i32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absolute: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(usize, Hex)>,
}

/// Element `index` of the stream of `seed`: splitmix64.
pub fn splitmix64(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Logits {
    /// All values in logical order.
    pub fn values(&self) -> Vec<f64> {
        let mut raised = vec![0; self.view.elements()];
        for &index in &self.raised {
            raised[index] = 128;
        }
        let mut values: Vec<f64> = self
            .view
            .walk()
            .into_iter()
            .zip(raised)
            .map(|((_, number), raised)| {
                let m = ((splitmix64(self.seed, number) >> 33) % 255) as i32 - 127;
                let m = if self.absolute { m.abs() } else { m };
                f64::from(m + raised) * 2f64.powi(self.exponent)
            })
            .collect();
        for &(index, value) in &self.set {
            values[index] = value.0;
        }
        values
    }
}

/// Targets, one by one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    pub dtype: Name<DType>,
    pub view: View,
    pub values: Vec<i64>,
}

/// Weights, one by one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    pub dtype: Name<DType>,
    pub view: View,
    pub values: Vec<Hex>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseBatch {
    pub logits: Logits,
    pub targets: Targets,
    #[serde(default, skip_serializing_if = "is_zero_offset")]
    pub target_offset: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_weights: Option<Numbers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets2: Option<Targets>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lam: Option<Numbers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_loss: Option<Numbers>,
}

fn is_zero_offset(value: &i64) -> bool {
    *value == 0
}

/// A batch as the reference reads it.
#[derive(Debug)]
pub struct Rows {
    pub logits: Vec<f64>,
    targets: Vec<i64>,
    target_offset: i64,
    sample_weights: Option<Vec<f64>>,
    second_targets: Option<(Vec<i64>, Vec<f64>)>,
    grad_loss: Option<Vec<f64>>,
}

impl CaseBatch {
    /// (N, K, inner).
    pub fn sizes(&self) -> (usize, usize, usize) {
        let shape = &self.logits.view.shape;
        (shape[0], shape[1], shape.get(2).copied().unwrap_or(1))
    }

    /// For each number of the logits in logical order its place in rows, one row per sample.
    pub fn row_order(&self) -> Vec<usize> {
        let (n, classes, inner) = self.sizes();
        (0..n * classes * inner)
            .map(|flat| {
                let (sample, class, i) = (flat / (classes * inner), flat / inner % classes, flat % inner);
                (sample * inner + i) * classes + class
            })
            .collect()
    }

    /// `rows` (one row per sample) in the logical order of the logits.
    pub fn logical(&self, rows: &[f64]) -> Vec<f64> {
        self.row_order().into_iter().map(|place| rows[place]).collect()
    }

    /// The batch as the reference reads it.
    pub fn rows(&self) -> Rows {
        let values = self.logits.values();
        let mut logits = vec![0.0; values.len()];
        for (place, value) in self.row_order().into_iter().zip(values) {
            logits[place] = value;
        }
        let numbers = |numbers: &Option<Numbers>| -> Option<Vec<f64>> {
            let numbers = numbers.as_ref()?;
            Some(
                numbers
                    .values
                    .iter()
                    .map(|value| if numbers.dtype.0 == DType::F32 { f64::from(value.0 as f32) } else { value.0 })
                    .collect(),
            )
        };
        Rows {
            logits,
            targets: self.targets.values.clone(),
            target_offset: self.target_offset,
            sample_weights: numbers(&self.sample_weights),
            second_targets: self.targets2.as_ref().map(|targets| targets.values.clone()).zip(numbers(&self.lam)),
            grad_loss: numbers(&self.grad_loss),
        }
    }
}

impl Rows {
    pub fn samples(&self, update: Update) -> Samples<'_> {
        Samples {
            target_offset: self.target_offset,
            sample_weights: self.sample_weights.as_deref(),
            second_targets: self.second_targets.as_ref().map(|(targets, lam)| (&targets[..], &lam[..])),
            grad_loss: self.grad_loss.as_deref(),
            update,
            ..Samples::new(&self.logits, &self.targets)
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    #[serde(flatten)]
    pub action: Action,
    #[serde(default)]
    pub expect: Expect,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    Forward {
        batch: usize,
        update: Name<Update>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loss: Option<View>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grad: Option<View>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_place: bool,
    },
    Backward {
        batch: usize,
        grad: View,
    },
    Accumulate {
        batch: usize,
        update: Name<Update>,
    },
    NextEpoch {},
    SetMode {
        mode: Name<Mode>,
    },
    SetAlpha {
        alpha: Hex,
    },
    SetSoftLabels {
        values: Vec<Hex>,
    },
    SaveLoad {},
}

/// What must hold after a step; nothing is said about what is absent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Values>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad: Option<Values>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_abs_sum: Option<Values>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Vec<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<Integers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples_skipped: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_labels: Option<Values>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<CaseReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub kind: Name<ErrorKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Numbers: all of them, or those `at` these flat indices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Vec<usize>>,
    pub values: Vec<Hex>,
    pub atol: Hex,
    pub rtol: Hex,
}

/// Integers: all of them, or those `at` these flat indices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Integers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Vec<usize>>,
    pub values: Vec<i64>,
    pub atol: i64,
    pub rtol: Hex,
}

impl Default for Hex {
    fn default() -> Self {
        Self(0.0)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseReport {
    pub epoch: i64,
    pub rows_measured: i64,
    pub rows_kept: i64,
    pub rows_uniform: i64,
    pub rows_initial: i64,
    pub rows_one_hot: i64,
    pub rows_zero: i64,
    pub rows_frozen: i64,
    pub samples_accumulated: i64,
    pub samples_skipped: i64,
    pub classes_full: i64,
    pub targets_out_of_range: i64,
}

macro_rules! case_report_from {
    ($($report:ty),+) => { $(
        impl From<$report> for CaseReport {
            fn from(report: $report) -> Self {
                Self {
                    epoch: report.epoch,
                    rows_measured: report.rows_measured,
                    rows_kept: report.rows_kept,
                    rows_uniform: report.rows_uniform,
                    rows_initial: report.rows_initial,
                    rows_one_hot: report.rows_one_hot,
                    rows_zero: report.rows_zero,
                    rows_frozen: report.rows_frozen,
                    samples_accumulated: report.samples_accumulated,
                    samples_skipped: report.samples_skipped,
                    classes_full: report.classes_full,
                    targets_out_of_range: report.targets_out_of_range,
                }
            }
        }
    )+ };
}
case_report_from!(Report, ols::capi::ols_report_t);

/// A member of an enumeration, which a file gives by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Name<T>(pub T);

/// An enumeration whose members have names in the files.
pub trait Named: Sized + Copy + PartialEq + 'static {
    /// The members, in the order of the constants of the C include.
    const NAMES: &'static [(Self, &'static str)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(value, _)| *value == self).expect("every member has a name").1
    }

    fn code(self) -> usize {
        Self::NAMES.iter().position(|(value, _)| *value == self).expect("every member has a name")
    }
}

impl<T: Named> Serialize for Name<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de, T: Named> Deserialize<'de> for Name<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = T::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(value, _)| Self(*value)).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no name")))
    }
}

impl Named for DType {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::F32, "f32"),
        (Self::F64, "f64"),
        (Self::F16, "f16"),
        (Self::Bf16, "bf16"),
        (Self::I64, "i64"),
        (Self::I32, "i32"),
        (Self::U8, "u8"),
    ];
}

impl Named for EmptyClass {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::Keep, "keep"), (Self::Uniform, "uniform"), (Self::Initial, "initial"), (Self::OneHot, "one_hot"), (Self::Zero, "zero")];
}

impl Named for Reduction {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::None, "none"), (Self::Mean, "mean"), (Self::Sum, "sum")];
}

impl Named for Mode {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Train, "train"), (Self::Eval, "eval")];
}

impl Named for Update {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Add, "add"), (Self::None, "none"), (Self::TakeBack, "take_back")];
}

impl Named for ErrorKind {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::InvalidArgument, "invalid_argument"),
        (Self::InvalidDtype, "invalid_dtype"),
        (Self::InvalidShape, "invalid_shape"),
        (Self::TargetOutOfRange, "target_out_of_range"),
        (Self::InvalidState, "invalid_state"),
    ];
}
