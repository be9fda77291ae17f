//! The labels and weights of a group of samples, one sample to a lane.
#![allow(unsafe_code, reason = "targets are read through the caller's addresses, after all checks")]

use super::lanes::{Lanes, Real, Vectors};
use super::pass::Pass;
use crate::samples::{Place, Sample};

/// The most samples of a group: as many as the widest vector has lanes.
pub(super) const LANES: usize = 16;

/// One number per lane.
pub(super) type PerLane = [f64; LANES];

/// A bit for each lane in which `a` and `b` are equal.
#[inline(always)]
pub(super) fn equal_lanes<R: Real, V: Vectors>(a: &[R; LANES], b: &[R; LANES]) -> u32 {
    let width = R::Lanes::<V>::WIDTH;
    let mut bits = 0;
    for start in (0..LANES).step_by(width) {
        bits |= R::Lanes::<V>::load(&a[start..]).equal(R::Lanes::<V>::load(&b[start..])) << start;
    }
    bits
}

/// The labels of up to [`LANES`] samples. Lanes without a sample have class 0.
pub(super) struct Labels {
    /// Samples.
    pub count: usize,
    /// A bit for each lane whose sample takes part.
    pub active: u32,
    /// Whether any sample has two targets that differ (Mixup, CutMix).
    pub mixed: bool,
    /// The classes of the first and of the second target.
    pub classes: [[usize; LANES]; 2],
    /// The weights of the two targets: lam and `1 - lam`; 1 and 0 where both are the same class.
    pub lams: [PerLane; 2],
    /// The weights of the two hard labels: `alpha * w[y]`, times those of the targets.
    pub hard: [PerLane; 2],
    /// The class of the target with the larger weight, for which a sample counts in the statistics.
    pub dominant: [usize; LANES],
    /// The sample weights.
    pub weights: PerLane,
    /// The factor of the gradient: that of the reduction, times the incoming gradient and the sample weight.
    pub grad_scales: PerLane,
}

impl Labels {
    /// Labels without samples.
    #[inline(always)]
    pub fn new(pass: &Pass<'_>) -> Self {
        Self {
            count: 0,
            active: 0,
            mixed: false,
            classes: [[0; LANES]; 2],
            lams: [[1.0; LANES], [0.0; LANES]],
            hard: [[pass.alpha; LANES], [0.0; LANES]],
            dominant: [0; LANES],
            weights: [1.0; LANES],
            grad_scales: [if pass.divisor == 0.0 { 0.0 } else { 1.0 / pass.divisor }; LANES],
        }
    }

    /// Reads the labels of `count` samples from `first` on.
    ///
    /// # Safety
    /// The batch of the pass was validated, can be read, and has these samples. It is the pass that [`new`](Self::new) was given.
    #[inline(always)]
    pub unsafe fn read(&mut self, pass: &Pass<'_>, first: Place, count: usize) {
        self.count = count;
        // SAFETY: the caller promises a validated batch with these samples.
        unsafe {
            if pass.samples.is_plain() && pass.class_weights.is_none() {
                // What else there is, is the same for all samples.
                self.read_plain(pass, first);
            } else {
                *self = Self { count, ..Self::new(pass) };
                self.read_any(pass, first);
            }
        }
    }

    /// As [`read`](Self::read), for samples with one target and no weights.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    #[inline(always)]
    unsafe fn read_plain(&mut self, pass: &Pass<'_>, first: Place) {
        let (ignore_index, offset) = (pass.samples.ignore_index, pass.samples.target_offset);
        // Lanes without a sample have class 0.
        let mut targets = [offset; LANES];
        // SAFETY: the caller promises that the batch has these samples, whose targets can be read.
        unsafe { pass.samples.targets_of(first, &mut targets[..self.count]) };
        let mut ignored = 0;
        for (dominant, &target) in self.dominant.iter_mut().zip(&targets) {
            *dominant = target.wrapping_sub(offset) as usize;
            ignored += usize::from(target == ignore_index);
        }
        self.active = (1 << self.count) - 1;
        if ignored != 0 {
            for (lane, dominant) in self.dominant.iter_mut().enumerate().filter(|(lane, _)| targets[*lane] == ignore_index) {
                self.active &= !(1 << lane);
                *dominant = 0;
            }
        }
        self.classes = [self.dominant; 2];
    }

    /// As [`read`](Self::read), for any samples.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    #[inline(never)]
    unsafe fn read_any(&mut self, pass: &Pass<'_>, first: Place) {
        for lane in 0..self.count {
            let place = pass.samples.after(first, lane);
            // SAFETY: the caller promises that the batch was validated and has this sample.
            let Some(sample) = (unsafe { pass.samples.sample(place) }) else { continue };
            // SAFETY: as above: an incoming gradient has an element for each sample.
            let grad_loss = pass.samples.grad_loss.map_or(1.0, |grad_loss| unsafe { grad_loss.real(place) });
            self.set(lane, &sample, pass, grad_loss);
        }
    }

    fn set(&mut self, lane: usize, sample: &Sample, pass: &Pass<'_>, grad_loss: f64) {
        self.active |= 1u32 << lane;
        (self.classes[0][lane], self.classes[1][lane], self.dominant[lane]) = (sample.first, sample.second, sample.class());
        // Where both targets are the same class, lam has no effect on q.
        if sample.first != sample.second {
            (self.lams[0][lane], self.lams[1][lane], self.mixed) = (sample.lam, 1.0 - sample.lam, true);
        }
        for target in 0..2 {
            let weight = pass.class_weights.map_or(1.0, |weights| weights[self.classes[target][lane]]);
            self.hard[target][lane] = self.lams[target][lane] * (pass.alpha * weight);
        }
        self.weights[lane] = sample.weight;
        // In this order: a divisor that is the sum of tiny weights would overflow a quotient that no tiny weight is a factor of.
        self.grad_scales[lane] = if pass.divisor == 0.0 { 0.0 } else { (sample.weight / pass.divisor) * grad_loss };
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
