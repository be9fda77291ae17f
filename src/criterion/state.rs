//! What a criterion has learned and counted: to read, to set, to add up over workers.
#![allow(unsafe_code, reason = "a view is a promise about memory; it is handed on here")]

use super::Criterion;
use super::matrix::{check_matrix, read_matrix};
use crate::cpu::DefaultFloatEnvironment;
use crate::error::{Result, fail};
use crate::options::validate_soft_labels;
use crate::stream::CudaStream;
use crate::tensor::{Bytes, RawTensor, TensorMut, TensorRef};

/// The statistics of the running epoch, in place; see [`Criterion::statistics_mut`].
#[derive(Debug)]
#[non_exhaustive]
pub struct StatisticsMut<'a> {
    /// A: i64 of shape (K, K), a row per class; summed probabilities in units of 2^-30.
    pub sums: TensorMut<'a>,
    /// c: i64 of shape (K); samples that were summed.
    pub counts: TensorMut<'a>,
    /// i64 of shape ([`COUNTERS`](crate::COUNTERS)).
    pub counters: TensorMut<'a>,
}

impl Criterion {
    /// The soft label of `class`: K numbers.
    ///
    /// # Panics
    /// If `class` is not a class, or if the criterion is on a CUDA device.
    pub fn soft_label(&self, class: usize) -> &[f32] {
        self.state.soft_labels.row(class)
    }

    /// Replaces the soft labels: K x K numbers, row-major, a row per class, finite and not negative.
    ///
    /// # Errors
    /// Another number of elements, or one that is negative or not finite. The soft labels are as before then.
    pub fn set_soft_labels(&mut self, soft_labels: &[f32]) -> Result<()> {
        let classes = self.options.classes;
        // SAFETY: the view borrows what it describes.
        unsafe { self.set_soft_labels_raw(TensorRef::new(soft_labels, &[classes, classes])?.raw, CudaStream::LEGACY) }
    }

    /// As [`set_soft_labels`](Self::set_soft_labels), from a tensor of f32 or f64 of shape (K, K) on the criterion's device. On a CUDA device the copy is
    /// enqueued on `stream`, and [`reports_on`](Self::reports_on) tells whether a value was refused.
    ///
    /// # Errors
    /// Another shape, dtype or device; on the CPU an entry that is negative or not finite. The soft labels are as before then.
    pub fn set_soft_labels_on(&mut self, soft_labels: TensorRef<'_>, stream: CudaStream) -> Result<()> {
        // SAFETY: the view borrows what it describes.
        unsafe { self.set_soft_labels_raw(soft_labels.raw, stream) }
    }

    /// The soft labels S, where they lie: f32 of shape (K, K), a row per class; memory of the criterion's device.
    pub fn soft_labels(&self) -> TensorRef<'_> {
        TensorRef::borrowed(self.state.soft_labels.as_raw())
    }

    /// The statistics of the running epoch, where they lie, to be reduced over workers (sum) before [`next_epoch`](Self::next_epoch): by NCCL on a CUDA
    /// device, by MPI or Gloo on the CPU. All are integers, so that every worker learns the same soft labels, bit for bit.
    pub fn statistics_mut(&mut self) -> StatisticsMut<'_> {
        let [_, sums, counts, counters] = self.state_views().map(TensorMut::borrowed);
        StatisticsMut { sums, counts, counters }
    }

    /// The summed probabilities of `class` in the running epoch, in units of 2^-30: K numbers.
    ///
    /// # Panics
    /// If `class` is not a class, or if the criterion is on a CUDA device.
    pub fn sums(&self, class: usize) -> &[i64] {
        self.state.sums.row(class)
    }

    /// The samples of each class that were accumulated in the running epoch.
    ///
    /// # Panics
    /// If the criterion is on a CUDA device.
    pub fn counts(&self) -> &[i64] {
        self.state.counts.row(0)
    }

    /// The counters of the running epoch; see [`Counter`](crate::Counter).
    ///
    /// # Panics
    /// If the criterion is on a CUDA device.
    pub fn counters(&self) -> &[i64] {
        self.state.counters.row(0)
    }

    /// Adds the statistics of another worker to those of this one, exactly, so that workers that share an epoch's samples learn the same soft
    /// labels, bit for bit, as one that saw them all.
    ///
    /// # Errors
    /// Another number of classes; a criterion on a CUDA device; a sum that does not fit 64 bits, as that of two full classes may be. Nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.options.classes != other.options.classes {
            fail!(InvalidArgument, "num_classes = {} differs from the other's {}", self.options.classes, other.options.classes);
        }
        if self.cuda.is_some() || other.cuda.is_some() {
            fail!(Unsupported, "statistics on a CUDA device are merged there, by an all-reduce of their memory");
        }
        let pairs = [
            ("sums", &mut self.state.sums, &other.state.sums),
            ("counts", &mut self.state.counts, &other.state.counts),
            ("counters", &mut self.state.counters, &other.state.counters),
        ];
        for (name, own, others) in &pairs {
            for row in 0..own.rows() {
                let fits = |(own, other): (&i64, &i64)| own.checked_add(*other).is_some();
                if let Some(column) = own.row(row).iter().zip(others.row(row)).position(|pair| !fits(pair)) {
                    let (own, other) = (own.row(row)[column], others.row(row)[column]);
                    fail!(InvalidState, "{name}[{row}, {column}] = {own} + {other} does not fit 64 bits");
                }
            }
        }
        for (_, own, others) in pairs {
            for row in 0..own.rows() {
                own.row_mut(row).iter_mut().zip(others.row(row)).for_each(|(own, other)| *own += *other);
            }
        }
        Ok(())
    }

    /// Descriptions of S, A, c and the counters, in this order, to read and to write.
    pub(crate) fn state_views(&mut self) -> [RawTensor; 4] {
        let state = &mut self.state;
        [state.soft_labels.as_raw_mut(), state.sums.as_raw_mut(), state.counts.as_raw_mut(), state.counters.as_raw_mut()]
    }

    /// Refuses memory of the caller's that is part of the state, which may be the caller's too.
    pub(crate) fn check_apart_from_state(&self, name: &str, memory: *const u8, length: usize) -> Result<()> {
        let bytes = Bytes::at(memory, length);
        if self.state.bytes().iter().any(|own| own.overlap(&bytes)) {
            fail!(InvalidArgument, "{name} overlaps the criterion's state");
        }
        Ok(())
    }

    /// # Safety
    /// `matrix` describes memory that can be read.
    pub(crate) unsafe fn set_soft_labels_raw(&mut self, matrix: RawTensor, stream: CudaStream) -> Result<()> {
        const NAME: &str = "soft_labels";
        let classes = self.options.classes;
        check_matrix(NAME, &matrix, classes, self.options.device)?;
        if self.state.soft_labels.as_raw().overlaps(&matrix) {
            fail!(InvalidArgument, "{NAME} overlaps the criterion's state");
        }
        if let Some(cuda) = &self.cuda {
            // SAFETY: the caller's promise.
            return unsafe { cuda.set_soft_labels(&self.state, &matrix, stream) };
        }
        let _environment = DefaultFloatEnvironment::enter();
        // SAFETY: the caller's promise.
        let read = unsafe { read_matrix(NAME, &matrix, classes, self.options.device)? };
        validate_soft_labels(NAME, classes, (0..classes * classes).map(|index| f64::from(read(index))))?;
        for class in 0..classes {
            let row = self.state.soft_labels.row_mut(class);
            row.iter_mut().enumerate().for_each(|(k, to)| *to = read(class * classes + k));
        }
        Ok(())
    }
}
