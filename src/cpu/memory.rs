//! Rows of logits and gradients where the caller keeps them.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses, after all checks")]

use std::marker::PhantomData;

use super::labels::LANES;
use super::lanes::{Lanes, Vectors};
use super::storage::{Arithmetic, Storage};
use crate::samples::{Place, Rows};
use crate::tensor::DType;

/// Asks for the cache line of an address that will soon be used; any address will do.
#[inline(always)]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<{ _MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// How the entries of the samples of a group lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The classes of a sample side by side.
    Rows,
    /// The samples side by side, for each class.
    Columns,
    /// Anyhow.
    Scattered,
}

/// Logits or gradients of samples that follow each other, as they are stored.
#[derive(Clone, Copy)]
pub(super) struct Group<R> {
    /// Class 0 of the first sample.
    base: *mut u8,
    dtype: DType,
    /// Bytes from one sample to the next.
    step: isize,
    count: usize,
    pub classes: usize,
    /// Bytes from one class to the next.
    class_step: isize,
    pub layout: Layout,
    real: PhantomData<R>,
}

impl<R: Arithmetic> Group<R> {
    /// The rows of `count` samples that follow `first`, along the inner index or the outer one.
    ///
    /// # Safety
    /// `rows` has entries of a type that is computed in `R`, `classes` for each of the samples, which can be read, and written where
    /// [`scatter`](Self::scatter) and its like are used, as long as the group is.
    #[inline(always)]
    pub unsafe fn new(rows: &Rows, classes: usize, first: Place, count: usize, along_inner: bool) -> Self {
        let step = if along_inner { rows.inner } else { rows.outer };
        let layout = if rows.class == 1 {
            Layout::Rows
        } else if step == 1 || count == 1 {
            Layout::Columns
        } else {
            Layout::Scattered
        };
        let bytes = |elements: i64| elements as isize * rows.dtype.size() as isize;
        let (base, step, class_step) = (rows.at(first), bytes(step), bytes(rows.class));
        Self { base, dtype: rows.dtype, step, count, classes, class_step, layout, real: PhantomData }
    }

    /// The address of an entry.
    #[inline(always)]
    fn at(&self, lane: usize, class: usize) -> *mut u8 {
        debug_assert!(lane < self.count && class < self.classes);
        self.base.wrapping_offset(lane as isize * self.step + class as isize * self.class_step)
    }

    /// One entry.
    ///
    /// # Safety
    /// The group has this lane and this class, and nothing writes the entry meanwhile.
    #[inline(always)]
    pub unsafe fn read(&self, lane: usize, class: usize) -> R {
        // SAFETY: `new` was promised that all entries of the group can be read, and the caller that this is one of them.
        unsafe { R::read(self.dtype, self.at(lane, class)) }
    }

    /// The rows where they are, which are stored as `L`.
    #[inline(always)]
    pub fn lines<L: Storage>(&self) -> Lines<L> {
        debug_assert!(self.layout == Layout::Rows && self.dtype == L::DTYPE);
        let Self { base, step, count, classes, .. } = *self;
        Lines { base: base.cast(), step: step / size_of::<L>() as isize, count, classes }
    }

    /// The copies of the rows that [`gather`](Self::gather) makes at an address; `L` is what they are computed in.
    #[inline(always)]
    pub fn copied_lines<L: Storage<Real = R>>(&self, copies: *mut R) -> Lines<L> {
        debug_assert!(L::DTYPE == R::DTYPE);
        let Self { count, classes, .. } = *self;
        Lines { base: copies.cast(), step: classes as isize, count, classes }
    }

    /// How many stretches without a gap [`Layout::Rows`] is made of, and the entries of each: all rows are one where none is between them.
    #[inline(always)]
    fn stretches(&self) -> (usize, usize) {
        debug_assert!(self.layout == Layout::Rows);
        let is_dense = self.step == self.class_step * self.classes as isize;
        if is_dense { (1, self.count * self.classes) } else { (self.count, self.classes) }
    }

    /// Copies all entries, widened, to rows without a gap. `to` has room for a vector more.
    ///
    /// # Safety
    /// Nothing writes the entries meanwhile.
    #[inline(always)]
    pub unsafe fn gather<V: Vectors>(&self, to: &mut [R]) {
        let width = R::Lanes::<V>::WIDTH;
        match self.layout {
            Layout::Rows => {}
            // SAFETY: the caller promises that nothing writes the entries.
            Layout::Columns => return unsafe { self.gather_columns::<V>(to) },
            // SAFETY: as above.
            Layout::Scattered => return unsafe { self.gather_any(to) },
        }
        let (stretches, length) = self.stretches();
        for row in 0..stretches {
            // SAFETY: the stretch is of entries that `new` was promised can be read, and the caller promises that nothing writes them.
            unsafe { R::widen_all::<V>(self.dtype, self.at(row, 0), length, &mut to[row * length..], width, None) };
        }
    }

    /// As [`gather`](Self::gather), from columns: a square of samples and classes after the other is turned around.
    ///
    /// # Safety
    /// As [`gather`](Self::gather).
    #[inline(always)]
    unsafe fn gather_columns<V: Vectors>(&self, to: &mut [R]) {
        let width = R::Lanes::<V>::WIDTH;
        let mut column = [R::default(); LANES];
        for (lane, class) in self.squares(width) {
            let (lanes, classes) = (width.min(self.count - lane), width.min(self.classes - class));
            let mut square = R::Lanes::<V>::square();
            for (index, vector) in square.as_mut().iter_mut().enumerate().take(classes) {
                // The next square.
                let ahead = Some(width as isize * self.class_step);
                // SAFETY: `lanes` entries of the group, which `new` was promised can be read and the caller that nothing writes.
                unsafe { R::widen_all::<V>(self.dtype, self.at(lane, class + index), lanes, &mut column, width, ahead) };
                *vector = Lanes::load(&column);
            }
            let square = R::Lanes::<V>::transpose(square);
            for (index, vector) in square.as_ref().iter().enumerate().take(lanes) {
                let to = &mut to[(lane + index) * self.classes + class..][..classes];
                if classes == width { vector.store(to) } else { vector.store_part(to) }
            }
        }
    }

    /// The first lane and class of each square.
    #[inline(always)]
    fn squares(&self, width: usize) -> impl Iterator<Item = (usize, usize)> {
        let (count, classes) = (self.count, self.classes);
        (0..count).step_by(width).flat_map(move |lane| (0..classes).step_by(width).map(move |class| (lane, class)))
    }

    /// As [`gather`](Self::gather), entry by entry.
    ///
    /// # Safety
    /// As [`gather`](Self::gather).
    #[inline(never)]
    unsafe fn gather_any(&self, to: &mut [R]) {
        for class in 0..self.classes {
            for lane in 0..self.count {
                // SAFETY: the loops stay inside the group, and the caller promises that nothing writes the entries.
                to[lane * self.classes + class] = unsafe { self.read(lane, class) };
            }
        }
    }

    /// The reverse of [`gather`](Self::gather).
    ///
    /// # Safety
    /// The entries can be written, and nothing else uses them meanwhile.
    #[inline(always)]
    pub unsafe fn scatter<V: Vectors>(&self, from: &[R]) {
        let width = R::Lanes::<V>::WIDTH;
        match self.layout {
            Layout::Rows => {}
            // SAFETY: the caller promises exclusive access to the entries.
            Layout::Columns => return unsafe { self.scatter_columns::<V>(from) },
            // SAFETY: as above.
            Layout::Scattered => return unsafe { self.scatter_any(from) },
        }
        let (stretches, length) = self.stretches();
        for row in 0..stretches {
            // SAFETY: the stretch is of the group's entries, to which the caller promises exclusive access.
            unsafe { R::narrow_all::<V>(self.dtype, &from[row * length..], width, self.at(row, 0), length, None) };
        }
    }

    /// The reverse of [`gather_columns`](Self::gather_columns).
    ///
    /// # Safety
    /// As [`scatter`](Self::scatter).
    #[inline(always)]
    unsafe fn scatter_columns<V: Vectors>(&self, from: &[R]) {
        let width = R::Lanes::<V>::WIDTH;
        let mut column = [R::default(); LANES];
        for (lane, class) in self.squares(width) {
            let (lanes, classes) = (width.min(self.count - lane), width.min(self.classes - class));
            let mut square = R::Lanes::<V>::square();
            for (index, vector) in square.as_mut().iter_mut().enumerate().take(lanes) {
                let from = &from[(lane + index) * self.classes + class..][..classes];
                *vector = if classes == width { Lanes::load(from) } else { Lanes::load_part(from) };
            }
            let square = R::Lanes::<V>::transpose(square);
            for (index, vector) in square.as_ref().iter().enumerate().take(classes) {
                let ahead = Some(width as isize * self.class_step);
                vector.store(&mut column);
                // SAFETY: `lanes` entries of the group, to which the caller promises exclusive access.
                unsafe { R::narrow_all::<V>(self.dtype, &column, width, self.at(lane, class + index), lanes, ahead) };
            }
        }
    }

    /// As [`scatter`](Self::scatter), entry by entry.
    ///
    /// # Safety
    /// As [`scatter`](Self::scatter).
    #[inline(never)]
    unsafe fn scatter_any(&self, from: &[R]) {
        for class in 0..self.classes {
            for lane in 0..self.count {
                // SAFETY: the loops stay inside the group, to whose entries the caller promises exclusive access.
                unsafe { R::write(self.dtype, from[lane * self.classes + class], self.at(lane, class)) };
            }
        }
    }

    /// Brings the entries, which lie in [`Layout::Columns`], into the order (vector of samples, class, lane), widened; a vector after `size` numbers.
    ///
    /// # Safety
    /// Nothing writes the entries meanwhile.
    #[inline(always)]
    pub unsafe fn load_columns<V: Vectors>(&self, size: usize, to: &mut [R]) {
        debug_assert!(self.layout == Layout::Columns);
        for class in 0..self.classes {
            let to = &mut to[class * R::Lanes::<V>::WIDTH..];
            // The processor sees a stretch too late; the same place in the next class's is what comes a stretch later.
            // SAFETY: the entries of a class, side by side, which `new` was promised can be read and the caller that nothing writes.
            unsafe { R::widen_all::<V>(self.dtype, self.at(0, class), self.count, to, size, Some(self.class_step)) };
        }
    }

    /// The reverse of [`load_columns`](Self::load_columns).
    ///
    /// # Safety
    /// The entries can be written, and nothing else uses them meanwhile.
    #[inline(always)]
    pub unsafe fn store_columns<V: Vectors>(&self, size: usize, from: &[R]) {
        debug_assert!(self.layout == Layout::Columns);
        for class in 0..self.classes {
            let from = &from[class * R::Lanes::<V>::WIDTH..];
            // SAFETY: the entries of a class, side by side, to which the caller promises exclusive access.
            unsafe { R::narrow_all::<V>(self.dtype, from, size, self.at(0, class), self.count, Some(self.class_step)) };
        }
    }
}

/// Rows whose classes lie side by side, stored as `L`.
#[derive(Clone, Copy)]
pub(super) struct Lines<L> {
    base: *mut L,
    /// Elements from one row to the next.
    step: isize,
    count: usize,
    pub classes: usize,
}

impl<L: Storage> Lines<L> {
    /// The address of a row.
    #[inline(always)]
    pub fn start(&self, lane: usize) -> *mut L {
        self.base.wrapping_offset(lane as isize * self.step)
    }

    /// A row, to read.
    ///
    /// # Safety
    /// The lines have this row, stored as `L`; it can be read, and nothing writes it, for all of `'a`.
    #[inline(always)]
    pub unsafe fn row<'a>(&self, lane: usize) -> &'a [L] {
        debug_assert!(lane < self.count);
        // SAFETY: the caller promises that this row can be read and that nothing writes it; tensors and copies are aligned.
        unsafe { std::slice::from_raw_parts(self.start(lane), self.classes) }
    }

    /// A row, to write.
    ///
    /// # Safety
    /// The lines have this row, stored as `L`; it can be written, and nothing else accesses it, for all of `'a`.
    #[inline(always)]
    pub unsafe fn row_mut<'a>(&self, lane: usize) -> &'a mut [L] {
        debug_assert!(lane < self.count);
        // SAFETY: the caller promises that this row can be written and that nothing else accesses it; tensors and copies are aligned.
        unsafe { std::slice::from_raw_parts_mut(self.start(lane), self.classes) }
    }
}
