//! What comes with the logits of a group of samples, a lane for each.
#![allow(unsafe_code, reason = "targets are read through the caller's addresses, after all checks")]

use super::lanes::{Lanes, Real, Vectors};
use super::pass::Pass;
use crate::samples::{Place, Sample};

/// Samples of a group, at most: lanes of the widest vector.
pub(super) const LANES: usize = 16;

/// A number for each lane.
pub(super) type PerLane = [f64; LANES];

/// A bit for each lane in which both have the same number.
#[inline(always)]
pub(super) fn equal_lanes<R: Real, V: Vectors>(a: &[R; LANES], b: &[R; LANES]) -> u32 {
    let width = R::Lanes::<V>::WIDTH;
    let mut bits = 0;
    for start in (0..LANES).step_by(width) {
        bits |= R::Lanes::<V>::load(&a[start..]).equal(R::Lanes::<V>::load(&b[start..])) << start;
    }
    bits
}

/// The labels of up to [`LANES`] samples; lanes without one have class 0.
pub(super) struct Labels {
    pub count: usize,
    /// Which lanes' samples take part, a bit for each.
    pub active: u32,
    /// Whether any sample has two targets that differ.
    pub two: bool,
    /// By target: the classes, lam and 1 - lam (1 and 0 where both are the same), and the hard label's weights `alpha * w[y]`, times those.
    pub classes: [[usize; LANES]; 2],
    pub lams: [PerLane; 2],
    pub hard: [PerLane; 2],
    /// The class that the statistics mean.
    pub own: [usize; LANES],
    /// The sample weights.
    pub weights: PerLane,
    /// What gradients are multiplied by: the reduction's factor, times the incoming gradient and the sample weight.
    pub factors: PerLane,
}

impl Labels {
    /// Of no samples yet.
    #[inline(always)]
    pub fn new(pass: &Pass<'_>) -> Self {
        Self {
            count: 0,
            active: 0,
            two: false,
            classes: [[0; LANES]; 2],
            lams: [[1.0; LANES], [0.0; LANES]],
            hard: [[pass.alpha; LANES], [0.0; LANES]],
            own: [0; LANES],
            weights: [1.0; LANES],
            factors: [if pass.divisor == 0.0 { 0.0 } else { 1.0 / pass.divisor }; LANES],
        }
    }

    /// Reads those of `count` samples that follow `first`.
    ///
    /// # Safety
    /// The batch of the pass, which is that of [`new`](Self::new), was validated, can be read, and has these samples.
    #[inline(always)]
    pub unsafe fn read(&mut self, pass: &Pass<'_>, first: Place, count: usize) {
        self.count = count;
        // SAFETY: the caller's promise.
        unsafe {
            if pass.samples.is_plain() && pass.class_weights.is_none() {
                // The rest is the same for all samples.
                self.read_plain(pass, first);
            } else {
                *self = Self { count, ..Self::new(pass) };
                self.read_any(pass, first);
            }
        }
    }

    /// # Safety
    /// As [`read`](Self::read).
    #[inline(always)]
    unsafe fn read_plain(&mut self, pass: &Pass<'_>, first: Place) {
        let (ignore_index, offset) = (pass.samples.ignore_index, pass.samples.target_offset);
        // Lanes without a sample have class 0.
        let mut targets = [offset; LANES];
        // SAFETY: the caller's promise.
        unsafe { pass.samples.targets_of(first, &mut targets[..self.count]) };
        let mut ignored = 0;
        for (own, &target) in self.own.iter_mut().zip(&targets) {
            *own = target.wrapping_sub(offset) as usize;
            ignored += usize::from(target == ignore_index);
        }
        self.active = (1 << self.count) - 1;
        if ignored != 0 {
            for (lane, own) in self.own.iter_mut().enumerate().filter(|(lane, _)| targets[*lane] == ignore_index) {
                self.active &= !(1 << lane);
                *own = 0;
            }
        }
        self.classes = [self.own; 2];
    }

    /// # Safety
    /// As [`read`](Self::read).
    #[inline(never)]
    unsafe fn read_any(&mut self, pass: &Pass<'_>, first: Place) {
        for lane in 0..self.count {
            let place = pass.samples.after(first, lane);
            // SAFETY: the caller's promise.
            let Some(sample) = (unsafe { pass.samples.sample(place) }) else { continue };
            // SAFETY: as above.
            let grad_loss = pass.samples.grad_loss.map_or(1.0, |grad_loss| unsafe { grad_loss.real(place) });
            self.set(lane, &sample, pass, grad_loss);
        }
    }

    fn set(&mut self, lane: usize, sample: &Sample, pass: &Pass<'_>, grad_loss: f64) {
        self.active |= 1u32 << lane;
        (self.classes[0][lane], self.classes[1][lane], self.own[lane]) = (sample.first, sample.second, sample.class());
        // With one target twice lam has no effect on q.
        if sample.first != sample.second {
            (self.lams[0][lane], self.lams[1][lane], self.two) = (sample.lam, 1.0 - sample.lam, true);
        }
        for target in 0..2 {
            let weight = pass.class_weights.map_or(1.0, |weights| weights[self.classes[target][lane]]);
            self.hard[target][lane] = self.lams[target][lane] * (pass.alpha * weight);
        }
        self.weights[lane] = sample.weight;
        // In this order a divisor of tiny weights is met by a tiny weight.
        self.factors[lane] = if pass.divisor == 0.0 { 0.0 } else { (sample.weight / pass.divisor) * grad_loss };
    }

    /// A bit for each lane whose loss and gradient are 0: samples that take no part, and all of them where the divisor is 0.
    #[inline(always)]
    pub fn silent(&self, pass: &Pass<'_>) -> u32 {
        if pass.divisor == 0.0 { u32::MAX } else { !self.active }
    }

    /// Whether a lane's sample takes part.
    #[inline(always)]
    pub fn is_active(&self, lane: usize) -> bool {
        self.active & (1u32 << lane) != 0
    }
}

/// The lanes whose bits are set.
#[inline(always)]
pub(super) fn lanes(bits: u32) -> impl Iterator<Item = usize> {
    let mut left = bits;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}
