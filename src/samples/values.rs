//! The values that come with the logits of a batch: whether each obeys its rule, and the divisor of the mean.
#![allow(unsafe_code, reason = "elements are read through the caller's addresses, after all checks")]

use std::fmt;

use super::{BLOCK, Place, Samples};
use crate::error::{Result, fail};
use crate::options::is_finite_and_not_negative;

impl Samples {
    /// Checks every value that comes with the logits, and gives the mean's divisor `sum v*w[y]`.
    ///
    /// # Safety
    /// The batch's tensors can be read.
    pub unsafe fn validate(&self, class_weights: Option<&[f64]>) -> Result<f64> {
        if class_weights.is_none()
            && self.is_plain()
            // SAFETY: the caller's promise.
            && let Some(taking_part) = unsafe { self.count_plain() }
        {
            return Ok(taking_part as f64);
        }
        let mut divisor = 0.0;
        let mut start = 0;
        while start < self.count {
            let mut sum = 0.0;
            for index in start..(start + BLOCK).min(self.count) {
                let place = self.place(index);
                // SAFETY: the caller's promise; `validate_values` found the sample's values in range.
                unsafe {
                    self.validate_values(place)?;
                    if let Some(sample) = self.sample(place) {
                        sum += sample.weight * sample.class_weight(class_weights);
                    }
                }
            }
            divisor += sum;
            start += BLOCK;
        }
        Ok(divisor)
    }

    /// The samples that take part in an [`is_plain`](Self::is_plain) batch; `None` where a target is out of range.
    ///
    /// # Safety
    /// The batch's tensors can be read.
    unsafe fn count_plain(&self) -> Option<usize> {
        let (mut taking_part, mut wrong, mut index) = (0, false, 0);
        while index < self.count {
            let first = self.place(index);
            let neighbours = if self.inner == 1 { BLOCK } else { self.inner - first.inner };
            let count = BLOCK.min(self.count - index).min(neighbours);
            let mut targets = [0i64; BLOCK];
            // SAFETY: the caller's promise.
            unsafe { self.targets.integers(first, self.inner != 1, &mut targets[..count]) };
            for &target in &targets[..count] {
                let ignored = target == self.ignore_index;
                // The comparison rules out differences that wrap around.
                let inside = (target.wrapping_sub(self.target_offset) as u64) < self.classes as u64 && target >= self.target_offset;
                wrong |= !ignored && !inside;
                taking_part += usize::from(!ignored);
            }
            index += count;
        }
        (!wrong).then_some(taking_part)
    }

    /// # Safety
    /// The batch's tensors can be read.
    #[inline]
    unsafe fn validate_values(&self, place: Place) -> Result<()> {
        let at = At { place, images: self.images };
        let check_target = |name: &str, target: i64| -> Result<()> {
            let ignored = target == self.ignore_index;
            if !ignored && !target.checked_sub(self.target_offset).is_some_and(|class| (0..self.classes as i64).contains(&class)) {
                let (low, ignore) = (self.target_offset, self.ignore_index);
                let high = i128::from(low) + self.classes as i128;
                fail!(TargetOutOfRange, "{name}{at} = {target} is outside [{low}, {high}) and is not ignore_index ({ignore})");
            }
            Ok(())
        };
        // SAFETY: the caller's promise; the tensors were checked and have an element for each place.
        unsafe {
            check_target("target", self.targets.integer(place))?;
            if let Some(targets) = self.targets2 {
                check_target("target2", targets.integer(place))?;
            }
            if let Some(weights) = self.weights {
                let weight = weights.real(place);
                if !is_finite_and_not_negative(weight) {
                    fail!(InvalidArgument, "sample_weights{at} = {weight} is not a finite number >= 0");
                }
            }
            if let Some(lam) = self.lam {
                let lam = lam.real(place);
                if !(0.0..=1.0).contains(&lam) {
                    fail!(InvalidArgument, "lam{at} = {lam} is outside [0, 1]");
                }
            }
        }
        Ok(())
    }

    /// The error for an entry of `logits` that is no probability.
    pub fn not_a_probability(&self, place: Place, class: usize, value: f64) -> Result<()> {
        let (outer, inner) = (place.outer, place.inner);
        if self.images {
            fail!(InvalidArgument, "logits[{outer}, {class}, {inner}] = {value} is not a probability in [0, 1]");
        }
        fail!(InvalidArgument, "logits[{outer}, {class}] = {value} is not a probability in [0, 1]")
    }
}

/// Writes `[17]`, or `[3, 17]` for images.
struct At {
    place: Place,
    images: bool,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { outer, inner } = self.place;
        if self.images { write!(f, "[{outer}, {inner}]") } else { write!(f, "[{outer}]") }
    }
}
