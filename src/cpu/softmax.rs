//! From the sums of a row to its loss, and to the factors of its gradient and its statistics: in f64, a lane for each sample of a group, whichever
//! kernel formed the sums.

use std::ops::Range;

use super::exp::ln_f64;
use super::labels::{LANES, Labels, PerLane, lanes};
use super::lanes::Real;

/// What is known of the samples of a group.
pub(super) struct Softmaxes {
    /// The maximum; not finite for a row that takes no part because of it.
    pub max: PerLane,
    /// `sum exp(z - max)`.
    pub sum: PerLane,
    /// `sum q`, the soft part, but for the factor `scale`.
    pub mass: PerLane,
    /// `sum q * (z - max)`, the soft part, but for the factor `scale`.
    pub distance: PerLane,
    /// The logits of the first and of the second target.
    pub target_logits: [PerLane; 2],
    /// The loss, before the sample weight; NaN for a row that is not finite.
    pub loss: PerLane,
    /// `1 / sum exp(z - max)`, rounded to the row's type.
    pub inverse: PerLane,
    /// `Q / sum exp(z - max)`.
    pub p_scale: PerLane,
}

impl Softmaxes {
    #[inline(always)]
    pub fn new() -> Self {
        let zero = [0.0; LANES];
        let (max, sum, mass, distance, target_logits) = (zero, zero, zero, zero, [zero; 2]);
        Self { max, sum, mass, distance, target_logits, loss: zero, inverse: zero, p_scale: zero }
    }

    /// Computes loss, inverse and scale of some lanes from the rest, and gives a bit for each that takes part and whose row is finite. `masked` gives
    /// a lane's, given its maximum, `sum q * (max - z)`, the soft part, where the sum that was formed is not finite: some logits are -inf, or too far apart for their type.
    ///
    /// The loss is `-sum q * log p = Q * ln sum + sum q * (max - z)`.
    #[inline(always)]
    pub fn finish<R: Real>(&mut self, range: Range<usize>, labels: &Labels, scale: f64, masked: impl Fn(usize, f64) -> f64) -> u32 {
        let hard = &labels.hard;
        let mut log_sum = [0.0; LANES];
        for lane in range.clone() {
            log_sum[lane] = ln_f64(self.sum[lane]);
        }
        let mut finite = 0u32;
        for lane in range.clone() {
            self.inverse[lane] = R::from_f64(1.0 / self.sum[lane]).to_f64();
            let q_sum = self.mass[lane] * scale + (hard[0][lane] + hard[1][lane]);
            let first = hard[0][lane] * (self.max[lane] - self.target_logits[0][lane]);
            let second = hard[1][lane] * (self.max[lane] - self.target_logits[1][lane]);
            self.loss[lane] = q_sum * log_sum[lane] - self.distance[lane] * scale + first + second;
            self.p_scale[lane] = q_sum * self.inverse[lane];
        }
        let mut mask = 0u32;
        for lane in range {
            finite |= u32::from(self.loss[lane].is_finite()) << lane;
            mask |= 1 << lane;
        }
        finite &= labels.active;
        // A row that is not finite, or that the formula is not made for, has a loss that shows it.
        for lane in lanes(labels.active & mask & !finite) {
            if !self.max[lane].is_finite() || self.sum[lane].is_nan() {
                self.loss[lane] = f64::NAN;
                continue;
            }
            finite |= 1 << lane;
            let distance = -self.distance[lane] * scale;
            let distance = if distance.is_finite() { distance } else { masked(lane, self.max[lane]) };
            let q_sum = self.mass[lane] * scale + (hard[0][lane] + hard[1][lane]);
            let [first, second] = [0, 1].map(|target| term(hard[target][lane], self.max[lane], self.target_logits[target][lane]));
            self.loss[lane] = q_sum * log_sum[lane] + distance + first + second;
        }
        finite
    }
}

/// `q * (max - z)`, where 0 times anything is 0.
pub(super) fn term(q: f64, max: f64, z: f64) -> f64 {
    let distance = max - z;
    if q == 0.0 {
        0.0
    } else if distance.is_infinite() && z.is_finite() {
        q * max - q * z // the difference alone overflows
    } else {
        q * distance
    }
}
