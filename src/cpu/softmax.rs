//! From the maximum and the sums of a row to its loss, and to the scales of its gradient and its statistics: in f64, one sample of a group to a
//! lane, the same for all kernels.

use std::ops::Range;

use super::exp::ln_f64;
use super::labels::{LANES, Labels, PerLane, lanes};
use super::lanes::Real;

/// What kernels compute of the samples of a group, before and after [`finish`](Self::finish).
pub(super) struct Softmaxes {
    /// The maximum. Not finite for a row with +inf, or of nothing but -inf or NaN.
    pub max: PerLane,
    /// `sum exp(z - max)`.
    pub exp_sum: PerLane,
    /// `sum q` over the soft part, without the factor `scale`.
    pub soft_sum: PerLane,
    /// `sum q * (z - max)` over the soft part, without the factor `scale`.
    pub soft_dot: PerLane,
    /// The logits of the first and of the second target.
    pub target_logits: [PerLane; 2],
    /// The loss without the sample weight. NaN for a row that is not finite.
    pub loss: PerLane,
    /// `1 / sum exp(z - max)`, rounded to the row's type.
    pub inverse_sum: PerLane,
    /// `Q / sum exp(z - max)`, where Q is `sum q`.
    pub p_scale: PerLane,
}

impl Softmaxes {
    /// All zeros.
    #[inline(always)]
    pub fn new() -> Self {
        let zero = [0.0; LANES];
        Self {
            max: zero,
            exp_sum: zero,
            soft_sum: zero,
            soft_dot: zero,
            target_logits: [zero; 2],
            loss: zero,
            inverse_sum: zero,
            p_scale: zero,
        }
    }

    /// Computes `loss`, `inverse_sum` and `p_scale` of a range of lanes from the other fields, and gives a bit for each lane that takes part and
    /// whose row is finite.
    ///
    /// The loss is `-sum q * log p = Q * ln sum exp(z - max) + sum q * (max - z)`. Where the soft part of the second term overflowed, because
    /// logits are -inf or differ by more than their type holds, `masked` computes it, given the lane and its maximum.
    #[inline(always)]
    pub fn finish<R: Real>(&mut self, range: Range<usize>, labels: &Labels, scale: f64, masked: impl Fn(usize, f64) -> f64) -> u32 {
        let hard = &labels.hard;
        let mut log_sum = [0.0; LANES];
        for lane in range.clone() {
            log_sum[lane] = ln_f64(self.exp_sum[lane]);
        }
        let mut finite = 0u32;
        for lane in range.clone() {
            self.inverse_sum[lane] = R::from_f64(1.0 / self.exp_sum[lane]).to_f64();
            let q_sum = self.soft_sum[lane] * scale + (hard[0][lane] + hard[1][lane]);
            let first = hard[0][lane] * (self.max[lane] - self.target_logits[0][lane]);
            let second = hard[1][lane] * (self.max[lane] - self.target_logits[1][lane]);
            self.loss[lane] = q_sum * log_sum[lane] - self.soft_dot[lane] * scale + first + second;
            self.p_scale[lane] = q_sum * self.inverse_sum[lane];
        }
        let mut mask = 0u32;
        for lane in range {
            finite |= u32::from(self.loss[lane].is_finite()) << lane;
            mask |= 1 << lane;
        }
        finite &= labels.active;
        // Rows that are not finite, and those that overflowed, have a loss that is not finite.
        for lane in lanes(labels.active & mask & !finite) {
            if !self.max[lane].is_finite() || self.exp_sum[lane].is_nan() {
                self.loss[lane] = f64::NAN;
                continue;
            }
            finite |= 1 << lane;
            let soft = -self.soft_dot[lane] * scale;
            let soft = if soft.is_finite() { soft } else { masked(lane, self.max[lane]) };
            let q_sum = self.soft_sum[lane] * scale + (hard[0][lane] + hard[1][lane]);
            let [first, second] = [0, 1].map(|target| loss_term(hard[target][lane], self.max[lane], self.target_logits[target][lane]));
            self.loss[lane] = q_sum * log_sum[lane] + soft + first + second;
        }
        finite
    }
}

/// The term `q * (max - z)` of a loss, where 0 times anything is 0.
pub(super) fn loss_term(q: f64, max: f64, z: f64) -> f64 {
    let distance = max - z;
    if q == 0.0 {
        0.0
    } else if distance.is_infinite() && z.is_finite() {
        q * max - q * z // only the difference overflows
    } else {
        q * distance
    }
}
