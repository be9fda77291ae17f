//! Logits and gradients in the memory of the caller: their layouts, and copies between these and what kernels work on.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses, after all checks")]

use std::marker::PhantomData;

use super::labels::LANES;
use super::lanes::{Lanes, Vectors};
use super::storage::{Arithmetic, Storage};
use crate::samples::{Place, Rows};
use crate::tensor::DType;

/// Prefetches the cache line of an address, which may be any.
#[inline(always)]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect that a program can observe, and does not fault, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<{ _MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The memory layout of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The classes of a sample lie side by side.
    Rows,
    /// The samples lie side by side, for each class.
    Columns,
    /// Neither.
    Scattered,
}

/// The logits or gradients of samples that follow each other, where and as they are stored.
#[derive(Clone, Copy)]
pub(super) struct Group<R> {
    /// The entry of class 0 of the first sample.
    base: *mut u8,
    dtype: DType,
    /// Bytes from one sample to the next.
    sample_stride: isize,
    count: usize,
    pub classes: usize,
    /// Bytes from one class to the next.
    class_stride: isize,
    pub layout: Layout,
    real: PhantomData<R>,
}

impl<R: Arithmetic> Group<R> {
    /// The rows of `count` samples from `first` on, along the inner index or the outer one.
    ///
    /// # Safety
    /// `rows` has an entry, of a type that is computed in `R`, for each of the samples and each of `classes`. All of these can be read for as
    /// long as the group is used.
    #[inline(always)]
    pub unsafe fn new(rows: &Rows, classes: usize, first: Place, count: usize, along_inner: bool) -> Self {
        let sample_stride = if along_inner { rows.inner } else { rows.outer };
        let layout = if rows.class == 1 {
            Layout::Rows
        } else if sample_stride == 1 || count == 1 {
            Layout::Columns
        } else {
            Layout::Scattered
        };
        let bytes = |elements: i64| elements as isize * rows.dtype.size() as isize;
        let (base, sample_stride, class_stride) = (rows.at(first), bytes(sample_stride), bytes(rows.class));
        Self { base, dtype: rows.dtype, sample_stride, count, classes, class_stride, layout, real: PhantomData }
    }

    /// The address of an entry.
    #[inline(always)]
    fn at(&self, lane: usize, class: usize) -> *mut u8 {
        debug_assert!(lane < self.count && class < self.classes);
        self.base.wrapping_offset(lane as isize * self.sample_stride + class as isize * self.class_stride)
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

    /// The rows where they lie, stored as `L`.
    #[inline(always)]
    pub fn rows<L: Storage>(&self) -> ContiguousRows<L> {
        debug_assert!(self.layout == Layout::Rows && self.dtype == L::DTYPE);
        let Self { base, sample_stride, count, classes, .. } = *self;
        ContiguousRows { base: base.cast(), stride: sample_stride / size_of::<L>() as isize, count, classes }
    }

    /// The copies of the rows that [`gather`](Self::gather) made at an address. `L` is the type that they are computed in.
    #[inline(always)]
    pub fn copied_rows<L: Storage<Real = R>>(&self, copies: *mut R) -> ContiguousRows<L> {
        debug_assert!(L::DTYPE == R::DTYPE);
        let Self { count, classes, .. } = *self;
        ContiguousRows { base: copies.cast(), stride: classes as isize, count, classes }
    }

    /// The number of contiguous runs that a group in [`Layout::Rows`] consists of, and the entries of each: one run where no gap is between rows.
    #[inline(always)]
    fn runs(&self) -> (usize, usize) {
        debug_assert!(self.layout == Layout::Rows);
        let is_dense = self.sample_stride == self.class_stride * self.classes as isize;
        if is_dense { (1, self.count * self.classes) } else { (self.count, self.classes) }
    }

    /// Copies all entries, widened, to contiguous rows. `to` is longer than these by a vector.
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
        let (runs, length) = self.runs();
        for run in 0..runs {
            // SAFETY: the run is of entries that `new` was promised can be read, and the caller promises that nothing writes them.
            unsafe { R::widen_all::<V>(self.dtype, self.at(run, 0), length, &mut to[run * length..], width, None) };
        }
    }

    /// As [`gather`](Self::gather), from [`Layout::Columns`]: transposes one square tile of samples and classes after the other.
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
                // The same place in the next tile.
                let ahead = Some(width as isize * self.class_stride);
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

    /// The first lane and class of each square tile.
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

    /// The inverse of [`gather`](Self::gather): rounds to the stored type.
    ///
    /// # Safety
    /// The entries can be written, and nothing else accesses them meanwhile.
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
        let (runs, length) = self.runs();
        for run in 0..runs {
            // SAFETY: the run is of the group's entries, to which the caller promises exclusive access.
            unsafe { R::narrow_all::<V>(self.dtype, &from[run * length..], width, self.at(run, 0), length, None) };
        }
    }

    /// The inverse of [`gather_columns`](Self::gather_columns).
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
                let ahead = Some(width as isize * self.class_stride);
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

    /// Copies the entries, in [`Layout::Columns`], to the order (vector of samples, class, lane), widened, with a stride of `size` numbers from
    /// vector to vector.
    ///
    /// # Safety
    /// Nothing writes the entries meanwhile.
    #[inline(always)]
    pub unsafe fn load_columns<V: Vectors>(&self, size: usize, to: &mut [R]) {
        debug_assert!(self.layout == Layout::Columns);
        for class in 0..self.classes {
            let to = &mut to[class * R::Lanes::<V>::WIDTH..];
            // The hardware prefetcher would notice each new run too late, so the same place in the run of the next class is prefetched.
            // SAFETY: the entries of a class, side by side, which `new` was promised can be read and the caller that nothing writes.
            unsafe { R::widen_all::<V>(self.dtype, self.at(0, class), self.count, to, size, Some(self.class_stride)) };
        }
    }

    /// The inverse of [`load_columns`](Self::load_columns): rounds to the stored type.
    ///
    /// # Safety
    /// The entries can be written, and nothing else accesses them meanwhile.
    #[inline(always)]
    pub unsafe fn store_columns<V: Vectors>(&self, size: usize, from: &[R]) {
        debug_assert!(self.layout == Layout::Columns);
        for class in 0..self.classes {
            let from = &from[class * R::Lanes::<V>::WIDTH..];
            // SAFETY: the entries of a class, side by side, to which the caller promises exclusive access.
            unsafe { R::narrow_all::<V>(self.dtype, from, size, self.at(0, class), self.count, Some(self.class_stride)) };
        }
    }
}

/// Rows whose classes lie side by side, stored as `L`: addresses alone.
#[derive(Clone, Copy)]
pub(super) struct ContiguousRows<L> {
    base: *mut L,
    /// Elements from one row to the next.
    stride: isize,
    count: usize,
    pub classes: usize,
}

impl<L: Storage> ContiguousRows<L> {
    /// The address of a row.
    #[inline(always)]
    pub fn start(&self, lane: usize) -> *mut L {
        self.base.wrapping_offset(lane as isize * self.stride)
    }

    /// A row, to read.
    ///
    /// # Safety
    /// The rows include this one, stored as `L`; it can be read, and nothing writes it, for all of `'a`.
    #[inline(always)]
    pub unsafe fn row<'a>(&self, lane: usize) -> &'a [L] {
        debug_assert!(lane < self.count);
        // SAFETY: the caller promises that this row can be read and that nothing writes it; tensors and copies are aligned.
        unsafe { std::slice::from_raw_parts(self.start(lane), self.classes) }
    }

    /// A row, to write.
    ///
    /// # Safety
    /// The rows include this one, stored as `L`; it can be written, and nothing else accesses it, for all of `'a`.
    #[inline(always)]
    pub unsafe fn row_mut<'a>(&self, lane: usize) -> &'a mut [L] {
        debug_assert!(lane < self.count);
        // SAFETY: the caller promises that this row can be written and that nothing else accesses it; tensors and copies are aligned.
        unsafe { std::slice::from_raw_parts_mut(self.start(lane), self.classes) }
    }
}
