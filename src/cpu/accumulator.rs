//! Adding to the statistics: sums and counts that are a thread's alone, or that threads share under locks.
#![allow(unsafe_code, reason = "threads write to the same tables, to a row one at a time")]

use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lanes::Real;
use super::pass::Statistics;
use crate::error::Result;
use crate::state::{Matrix, try_vec};
use crate::statistics::FULL_CLASS;

/// A matrix of integers that several threads may write: its address and shape. Whoever accesses a row promises that nobody else does.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    data: *mut i64,
    rows: usize,
    columns: usize,
    row_stride: usize,
    matrix: PhantomData<&'a mut Matrix<i64>>,
}

// SAFETY: a table stands for an exclusive borrow of a matrix of integers, which may be sent to another thread.
unsafe impl Send for Table<'_> {}
// SAFETY: all methods that access elements are unsafe, and demand exclusive access to what they touch.
unsafe impl Sync for Table<'_> {}

impl<'a> Table<'a> {
    pub fn new(matrix: &'a mut Matrix<i64>) -> Self {
        let (rows, columns) = (matrix.rows(), matrix.columns());
        let raw = matrix.as_raw_mut();
        let row_stride = if rows == 1 { columns } else { raw.strides[0] as usize };
        Self { data: raw.data.cast(), rows, columns, row_stride, matrix: PhantomData }
    }

    /// The elements of a row.
    ///
    /// # Safety
    /// Nothing else accesses the row while the slice is alive.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller promises exclusive access to the row")]
    unsafe fn row_mut(&self, row: usize) -> &mut [i64] {
        assert!(row < self.rows);
        // SAFETY: the matrix is borrowed exclusively for 'a and has this row, which the caller promises nothing else accesses.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride), self.columns) }
    }

    /// Adds 1 to the count of a class, or subtracts it, in the table's only row. False, and nothing is done, where the class is full.
    ///
    /// # Safety
    /// Nothing else accesses the class's count meanwhile.
    #[inline(always)]
    unsafe fn count(&self, class: usize, negate: bool) -> bool {
        assert!(class < self.columns);
        // SAFETY: the matrix is borrowed exclusively for 'a and has this column, whose element the caller promises nothing else accesses.
        let count = unsafe { &mut *self.data.add(class) };
        if !negate && *count >= FULL_CLASS {
            return false;
        }
        *count += if negate { -1 } else { 1 };
        true
    }
}

/// Locks for the classes of the statistics, several classes to each.
#[derive(Debug)]
pub(crate) struct Locks(Vec<Padded>);

/// A lock on a cache line of its own: no false sharing.
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

/// Adds the distributions of correctly classified samples to the statistics, for one thread.
pub(super) struct Accumulator<'a> {
    target: Target<'a>,
    /// Whether samples are taken back: subtracted instead of added.
    negate: bool,
    /// Rows that were left out because they are not finite.
    pub skipped: i64,
}

/// Where samples are added.
enum Target<'a> {
    /// Nowhere.
    Nothing,
    /// The samples of each class that would be added are counted.
    Tally(&'a mut [i64]),
    /// A and c, under locks where other threads use them too.
    Tables { sums: Table<'a>, counts: Table<'a>, locks: Option<&'a Locks> },
}

impl<'a> Accumulator<'a> {
    /// Adds nothing.
    pub fn none() -> Self {
        Self { target: Target::Nothing, negate: false, skipped: 0 }
    }

    /// For the only thread of a pass.
    pub fn new(statistics: &'a mut Statistics<'_>) -> Self {
        match statistics {
            Statistics::Leave => Self::none(),
            Statistics::Tally(tally) => Self { target: Target::Tally(tally), negate: false, skipped: 0 },
            // SAFETY: this accumulator holds the exclusive borrow of both matrices.
            Statistics::Apply { sums, counts, negate, .. } => unsafe {
                Self::from_tables(Table::new(sums), Table::new(counts), None, *negate)
            },
        }
    }

    /// For a thread with sums and counts of its own.
    pub fn private((sums, counts): &'a mut (Matrix<i64>, Matrix<i64>), negate: bool) -> Self {
        // SAFETY: this accumulator holds the exclusive borrow of both matrices.
        unsafe { Self::from_tables(Table::new(sums), Table::new(counts), None, negate) }
    }

    /// For a thread that shares sums and counts with others.
    ///
    /// # Safety
    /// While the accumulator is alive, others access row `r` of `sums` and the count of class `r` only while they hold the lock of `r` in
    /// `locks`; without `locks`, nobody else accesses the tables at all.
    pub unsafe fn from_tables(sums: Table<'a>, counts: Table<'a>, locks: Option<&'a Locks>, negate: bool) -> Self {
        Self { target: Target::Tables { sums, counts, locks }, negate, skipped: 0 }
    }

    /// Counts rows that are not finite.
    #[inline(always)]
    pub fn skip(&mut self, rows: u32) {
        self.skipped += i64::from(rows);
    }

    /// Whether samples are taken back.
    #[inline(always)]
    pub fn negates(&self) -> bool {
        self.negate
    }

    /// A probability of 1 in the units of the statistics; negative where samples are taken back.
    #[inline(always)]
    pub fn unit<R: Real>(&self) -> f64 {
        if self.negate { -R::UNITS.to_f64() } else { R::UNITS.to_f64() }
    }

    /// The address of the sums of class 0 and the distance to those of the next class, in elements: for prefetching alone. Null where there are
    /// none.
    #[inline(always)]
    pub fn addresses(&self) -> (*const i64, usize) {
        match &self.target {
            Target::Tables { sums, .. } => (sums.data, sums.row_stride),
            Target::Nothing | Target::Tally(_) => (std::ptr::null(), 0),
        }
    }

    /// Counts a correctly classified sample of `class`, and gives the sums that its distribution is to be added to; `None` where nothing is to be
    /// added, as for a class that is full.
    #[inline(always)]
    pub fn row(&mut self, class: usize) -> Option<Row<'_>> {
        let lock = match &self.target {
            Target::Tables { locks: Some(locks), .. } => Some(locks.lock(class)),
            _ => None,
        };
        match &mut self.target {
            // SAFETY: `from_tables` was promised that nobody else accesses the class's row and count while its lock is held, or at all without
            // locks. The row borrows this accumulator, so this thread has no other one.
            Target::Tables { sums, counts, .. } => unsafe {
                counts.count(class, self.negate).then(|| Row { sums: sums.row_mut(class), _lock: lock })
            },
            Target::Nothing => None,
            Target::Tally(tally) => {
                tally[class] += 1;
                None
            }
        }
    }

    /// The same accumulator, for a kernel that counts many samples before it adds any of them.
    ///
    /// # Panics
    /// Where the accumulator has locks.
    #[inline(always)]
    pub fn unshared(&mut self) -> Unshared<'_, 'a> {
        assert!(!matches!(self.target, Target::Tables { locks: Some(_), .. }), "the statistics are shared with other threads");
        Unshared(self)
    }
}

/// An accumulator to statistics that no other thread uses meanwhile.
pub(super) struct Unshared<'a, 'b>(&'a mut Accumulator<'b>);

impl Unshared<'_, '_> {
    /// Counts a correctly classified sample of `class`, and says whether its distribution is to be added to [`sums`](Self::sums).
    #[inline(always)]
    pub fn count(&mut self, class: usize) -> bool {
        match &mut self.0.target {
            Target::Nothing => false,
            Target::Tally(tally) => {
                tally[class] += 1;
                false
            }
            // SAFETY: `from_tables` was promised that without locks, which `unshared` made sure of, nobody else accesses the tables.
            Target::Tables { counts, .. } => unsafe { counts.count(class, self.0.negate) },
        }
    }

    /// The sums of a class that [`count`](Self::count) said yes to.
    #[inline(always)]
    pub fn sums(&mut self, class: usize) -> &mut [i64] {
        match &mut self.0.target {
            // SAFETY: as in `count`; the slice borrows this accumulator, so this thread has no other one.
            Target::Tables { sums, .. } => unsafe { sums.row_mut(class) },
            Target::Nothing | Target::Tally(_) => &mut [],
        }
    }
}

/// The sums of a class, and the lock that makes them this thread's.
pub(super) struct Row<'a> {
    pub sums: &'a mut [i64],
    _lock: Option<MutexGuard<'a, ()>>,
}
