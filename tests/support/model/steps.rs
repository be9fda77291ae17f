//! Steps of a case, and what must come of them.

use ols::{ErrorKind, Mode, Report, Update};
use serde::{Deserialize, Serialize};

use super::{Name, View};
use crate::support::hex::Hex;

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
