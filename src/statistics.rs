//! A, c and the counters of the running epoch, and the report of an epoch's end.

/// Number of fraction bits of the summed probabilities: they are integers in units of 2^-30, so that their sums are exact in any order.
pub const FRACTION_BITS: u32 = 30;

/// A class with this many samples is full and accepts no more, so that its sums cannot overflow.
pub const FULL_CLASS: i64 = 1 << 32;

/// The counters that accompany A and c, and their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Counter {
    /// Rows that were skipped because they contain NaN or +inf, or are -inf throughout.
    SkippedNonFinite = 0,
    /// Targets that are neither a class nor the ignore index (on CUDA; on the CPU this is an error, and nothing is counted).
    TargetsOutOfRange = 1,
    /// Rows that could not be taken back, because a count would have become negative (on CUDA; on the CPU this is an error, and nothing is counted).
    TakeBacksRefused = 2,
}

/// Number of counters; those without a name are 0.
pub const COUNTERS: usize = 4;

/// A summary of an epoch. `rows_measured` and the other `rows_` fields add up to the number of classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Number of the completed epoch, counted from 1; 0 if none has ended yet.
    pub epoch: i64,
    /// Number of classes whose new soft label was measured.
    pub rows_measured: i64,
    /// Number of classes that kept their row: by `EmptyClass::Keep`, or because nothing at all was accumulated.
    pub rows_kept: i64,
    /// Number of classes that got a uniform row by `EmptyClass::Uniform`.
    pub rows_uniform: i64,
    /// Number of classes that got their initial row back by `EmptyClass::Initial`.
    pub rows_initial: i64,
    /// Number of classes that got a one-hot row by `EmptyClass::OneHot`.
    pub rows_one_hot: i64,
    /// Number of classes that got a row of zeros by `EmptyClass::Zero`.
    pub rows_zero: i64,
    /// Number of classes that kept their row because of `freeze_above`.
    pub rows_frozen: i64,
    /// Number of samples that were accumulated, that is, classified correctly.
    pub samples_accumulated: i64,
    /// Number of samples that were skipped because their logits contain NaN or +inf, or are -inf throughout.
    pub samples_skipped: i64,
    /// Number of classes that were full and accepted no more samples.
    pub classes_full: i64,
    /// Number of targets that were neither a class nor the ignore index.
    pub targets_out_of_range: i64,
}
