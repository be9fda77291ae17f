//! A batch: its tensors as the files have them, and as the reference reads them.

use ols::reference::Samples;
use ols::{DType, Update};
use serde::{Deserialize, Serialize};

use super::{Name, View};
use crate::support::hex::Hex;

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
