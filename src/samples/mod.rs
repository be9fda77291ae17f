//! A batch that was checked: every rule about shapes, dtypes, devices, overlaps and values holds, and each sample can be read.
#![allow(unsafe_code, reason = "elements are read through the caller's addresses, after all checks")]

mod description;
mod values;
mod views;

pub(crate) use views::{PerSample, Place, Rows};

/// Samples whose sums are added up one after the other; the sums of blocks are added in the order of the blocks. Part of the definition of the
/// loss's bits, whatever the number of threads.
pub(crate) const BLOCK: usize = 64;

/// A sample that takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The class of the first target.
    pub first: usize,
    /// The class of the second target; the first one's where there is none.
    pub second: usize,
    /// Weight of the first target; `1 - lam` is the second one's.
    pub lam: f64,
    /// The sample weight v.
    pub weight: f64,
}

impl Sample {
    /// The class that the statistics mean: that of the larger lam, the first at 0.5.
    pub fn class(&self) -> usize {
        if self.lam >= 0.5 { self.first } else { self.second }
    }

    /// `w[y]` in the mean's divisor.
    pub fn class_weight(&self, weights: Option<&[f64]>) -> f64 {
        weights.map_or(1.0, |w| self.lam * w[self.first] + (1.0 - self.lam) * w[self.second])
    }
}

/// A checked batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Samples {
    /// Samples in all.
    pub count: usize,
    pub classes: usize,
    /// Samples that share an outer index: 1 but for (N, K, inner).
    pub inner: usize,
    pub logits: Rows,
    pub grad: Option<Rows>,
    pub loss: Option<PerSample>,
    pub targets: PerSample,
    pub targets2: Option<PerSample>,
    pub weights: Option<PerSample>,
    pub lam: Option<PerSample>,
    pub grad_loss: Option<PerSample>,
    pub target_offset: i64,
    pub ignore_index: i64,
    /// Whether targets have two indices in messages.
    images: bool,
}

impl Samples {
    /// The same batch to read alone.
    pub fn without_outputs(&self) -> Self {
        Self { loss: None, grad: None, ..*self }
    }

    /// Where sample number `index` is.
    #[inline]
    pub fn place(&self, index: usize) -> Place {
        if self.inner == 1 { Place { outer: index, inner: 0 } } else { Place { outer: index / self.inner, inner: index % self.inner } }
    }

    /// The place `count` samples after `first`, with the same outer index where there are inner ones.
    #[inline]
    pub fn after(&self, first: Place, count: usize) -> Place {
        if self.inner == 1 { Place { outer: first.outer + count, ..first } } else { Place { inner: first.inner + count, ..first } }
    }

    /// Whether samples may have two targets.
    pub fn has_second_targets(&self) -> bool {
        self.targets2.is_some()
    }

    /// Whether a sample is its target alone: nothing else differs from one to the next.
    pub fn is_plain(&self) -> bool {
        self.targets2.is_none() && self.weights.is_none() && self.grad_loss.is_none()
    }

    /// Reads the targets of samples that follow `first` (with the same outer index, where there are inner ones), as they are given.
    ///
    /// # Safety
    /// As [`sample`](Self::sample).
    #[inline]
    pub unsafe fn targets_of(&self, first: Place, to: &mut [i64]) {
        // SAFETY: the caller's promise.
        unsafe { self.targets.integers(first, self.inner != 1, to) };
    }

    /// Reads what comes with the logits of a sample; `None` where it takes no part.
    ///
    /// # Safety
    /// The batch's tensors can be read, and [`validate`](Self::validate) found no error.
    #[inline]
    pub unsafe fn sample(&self, place: Place) -> Option<Sample> {
        // SAFETY: the caller's promise; the tensors were checked and have an element for each place.
        unsafe {
            let first = self.targets.integer(place);
            let second = self.targets2.map_or(first, |targets| targets.integer(place));
            let weight = self.weights.map_or(1.0, |weights| weights.real(place));
            if first == self.ignore_index || second == self.ignore_index || weight == 0.0 {
                return None;
            }
            let class = |target: i64| target.wrapping_sub(self.target_offset) as usize;
            Some(Sample { first: class(first), second: class(second), lam: self.lam.map_or(1.0, |lam| lam.real(place)), weight })
        }
    }
}
