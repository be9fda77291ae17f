//! A, c and the counters of the running epoch, and the report of an epoch's end.

/// Bits behind the binary point of the summed probabilities: a unit is 2^-30, so that any order of additions gives the same sum.
pub const FRACTION_BITS: u32 = 30;

/// A class that has this many samples is full and takes no more, so that its sums cannot overflow.
pub const FULL_CLASS: i64 = 1 << 32;

/// The counters beside A and c, and their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Rows that were kept out because they hold NaN, +inf, or nothing but -inf.
    SkippedNonFinite = 0,
    /// Targets that are neither a class nor the ignore index (on CUDA; on the CPU they are an error before anything is counted).
    TargetsOutOfRange = 1,
    /// Rows whose take-back would have made a count negative (on CUDA; on the CPU that is an error before anything is touched).
    TakeBacksRefused = 2,
}

/// Number of counters; those without a name are 0.
pub const COUNTERS: usize = 4;

/// What happened in an epoch. `rows_measured` and all other `rows_` add up to the number of classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Number of the epoch that ended, counted from 1; 0 where none has ended yet.
    pub epoch: i64,
    /// Classes whose new soft label was measured.
    pub rows_measured: i64,
    /// Classes that kept their row by `EmptyClass::Keep`, or because nothing at all was accumulated.
    pub rows_kept: i64,
    /// Classes with a uniform row by `EmptyClass::Uniform`.
    pub rows_uniform: i64,
    /// Classes back at their first row by `EmptyClass::Initial`.
    pub rows_initial: i64,
    /// Classes with a one-hot row by `EmptyClass::OneHot`.
    pub rows_one_hot: i64,
    /// Classes with a row of zeros by `EmptyClass::Zero`.
    pub rows_zero: i64,
    /// Classes that stay as they are because of `freeze_above`.
    pub rows_frozen: i64,
    /// Samples that were accumulated: those classified right.
    pub samples_accumulated: i64,
    /// Samples that were kept out because their logits hold NaN, +inf, or nothing but -inf.
    pub samples_skipped: i64,
    /// Classes that were full and took no more samples.
    pub classes_full: i64,
    /// Targets that were neither a class nor the ignore index.
    pub targets_out_of_range: i64,
}
