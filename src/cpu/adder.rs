//! What a thread does to the statistics.
#![allow(unsafe_code, reason = "threads add to the same rows, one at a time")]

use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pass::Statistics;
use crate::error::Result;
use crate::state::{Matrix, try_vec};
use crate::statistics::FULL_CLASS;

/// A matrix of integers that several threads write.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    data: *mut i64,
    rows: usize,
    columns: usize,
    row_stride: usize,
    matrix: PhantomData<&'a mut Matrix<i64>>,
}

// SAFETY: a table is an address and a shape; who uses a row is the business of those who ask for it.
unsafe impl Send for Table<'_> {}
// SAFETY: as above.
unsafe impl Sync for Table<'_> {}

impl<'a> Table<'a> {
    pub fn new(matrix: &'a mut Matrix<i64>) -> Self {
        let (rows, columns) = (matrix.rows(), matrix.columns());
        let raw = matrix.as_raw_mut();
        let row_stride = if rows == 1 { columns } else { raw.strides[0] as usize };
        Self { data: raw.data.cast(), rows, columns, row_stride, matrix: PhantomData }
    }

    /// # Safety
    /// Nobody else uses the row while the slice is alive.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller promises that the row is nobody else's")]
    unsafe fn row_mut(&self, row: usize) -> &mut [i64] {
        assert!(row < self.rows);
        // SAFETY: the matrix is borrowed exclusively for 'a and has this row; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride), self.columns) }
    }

    /// Counts a sample of a class, in the first row, unless the class is full.
    ///
    /// # Safety
    /// Nobody else uses the class's count meanwhile.
    #[inline(always)]
    unsafe fn count(&self, class: usize, negate: bool) -> bool {
        assert!(class < self.columns);
        // SAFETY: the matrix is borrowed exclusively for 'a and has this column; the caller's promise.
        let count = unsafe { &mut *self.data.add(class) };
        if !negate && *count >= FULL_CLASS {
            return false;
        }
        *count += if negate { -1 } else { 1 };
        true
    }
}

/// Locks for the rows of a table, several rows to each.
#[derive(Debug)]
pub(crate) struct Locks(Vec<Padded>);

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(Mutex<()>);

impl Locks {
    const COUNT: usize = 64;

    pub fn new() -> Result<Self> {
        try_vec("locks", Self::COUNT).map(Self)
    }

    #[inline]
    fn lock(&self, row: usize) -> MutexGuard<'_, ()> {
        self.0[row % Self::COUNT].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread does with samples that are classified right.
pub(super) struct Adder<'a> {
    kind: Kind<'a>,
    /// Whether what is added is subtracted.
    negate: bool,
    /// Rows that were kept out because they are not finite.
    pub skipped: i64,
}

enum Kind<'a> {
    Leave,
    /// Counts, per class, the samples that would be added.
    Tally(&'a mut [i64]),
    Apply {
        sums: Table<'a>,
        counts: Table<'a>,
        locks: Option<&'a Locks>,
    },
}

impl<'a> Adder<'a> {
    pub fn leave() -> Self {
        Self { kind: Kind::Leave, negate: false, skipped: 0 }
    }

    /// For one thread alone.
    pub fn of(statistics: &'a mut Statistics<'_>) -> Self {
        match statistics {
            Statistics::Leave => Self::leave(),
            Statistics::Tally(tally) => Self { kind: Kind::Tally(tally), negate: false, skipped: 0 },
            // SAFETY: both matrices are borrowed exclusively and used by this adder alone.
            Statistics::Apply { sums, counts, negate, .. } => unsafe { Self::apply(Table::new(sums), Table::new(counts), None, *negate) },
        }
    }

    /// Adds to sums and counts of a thread's own.
    pub fn own((sums, counts): &'a mut (Matrix<i64>, Matrix<i64>), negate: bool) -> Self {
        // SAFETY: both are borrowed exclusively and used by this adder alone.
        unsafe { Self::apply(Table::new(sums), Table::new(counts), None, negate) }
    }

    /// Adds to (or, where `negate` says so, subtracts from) sums and counts.
    ///
    /// # Safety
    /// While the adder is alive others use the tables' rows under `locks` alone, or not at all where there are none.
    pub unsafe fn apply(sums: Table<'a>, counts: Table<'a>, locks: Option<&'a Locks>, negate: bool) -> Self {
        Self { kind: Kind::Apply { sums, counts, locks }, negate, skipped: 0 }
    }

    /// Notes rows that are not finite.
    #[inline(always)]
    pub fn skip(&mut self, rows: u32) {
        self.skipped += i64::from(rows);
    }

    /// Whether what is added is subtracted.
    #[inline(always)]
    pub fn negates(&self) -> bool {
        self.negate
    }

    /// Counts a sample of `class` that is classified right, and says whether its distribution is to be added to [`sums`](Self::sums): a full
    /// class takes no more. For an adder without locks.
    #[inline(always)]
    pub fn count(&mut self, class: usize) -> bool {
        match &mut self.kind {
            Kind::Leave => false,
            Kind::Tally(tally) => {
                tally[class] += 1;
                false
            }
            Kind::Apply { counts, locks, .. } => {
                debug_assert!(locks.is_none());
                // SAFETY: `apply` was promised that without locks the tables are this thread's.
                unsafe { counts.count(class, self.negate) }
            }
        }
    }

    /// Where the sums of class 0 are, and how far apart those of the next ones, to be asked for ahead of time.
    #[inline(always)]
    pub fn addresses(&self) -> (*const i64, usize) {
        match &self.kind {
            Kind::Apply { sums, .. } => (sums.data, sums.row_stride),
            Kind::Leave | Kind::Tally(_) => (std::ptr::null(), 0),
        }
    }

    /// The sums of a class that [`count`](Self::count) said yes to.
    #[inline(always)]
    pub fn sums(&mut self, class: usize) -> &mut [i64] {
        match &mut self.kind {
            // SAFETY: as in `count`.
            Kind::Apply { sums, .. } => unsafe { sums.row_mut(class) },
            Kind::Leave | Kind::Tally(_) => &mut [],
        }
    }

    /// [`count`](Self::count) and [`sums`](Self::sums) in one, for any adder.
    #[inline(always)]
    pub fn row(&mut self, class: usize) -> Option<Row<'_>> {
        let lock = match &self.kind {
            Kind::Apply { locks: Some(locks), .. } => Some(locks.lock(class)),
            _ => None,
        };
        match &mut self.kind {
            // SAFETY: `apply` was promised that the lock, or that there is none, makes the class's row and count this thread's.
            Kind::Apply { sums, counts, .. } => unsafe {
                counts.count(class, self.negate).then(|| Row { sums: sums.row_mut(class), _lock: lock })
            },
            Kind::Leave => None,
            Kind::Tally(tally) => {
                tally[class] += 1;
                None
            }
        }
    }
}

/// The sums of a class, for as long as they are this thread's.
pub(super) struct Row<'a> {
    pub sums: &'a mut [i64],
    _lock: Option<MutexGuard<'a, ()>>,
}
