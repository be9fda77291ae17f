//! What a conformance case is: options, batches, and steps with what must come of them. The files' `comment` explains each field.

mod batch;
mod names;
mod steps;
mod view;

pub use batch::{CaseBatch, Logits, Numbers, Targets, splitmix64};
pub use names::{Name, Named};
pub use steps::{Action, CaseReport, Expect, Failure, Integers, Step, Values};
pub use view::View;

use ols::{EmptyClass, Initial, Mode, Options, Reduction};
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
                other => unimplemented!("{other:?}"),
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
