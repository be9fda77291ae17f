//! Rows of logits and gradients where the caller keeps them.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses, after all checks")]

use super::storage::Storage;
use crate::samples::{Place, Rows};

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

/// Logits or gradients of samples that follow each other.
#[derive(Clone, Copy)]
pub(super) struct Group<L> {
    /// Class 0 of the first sample.
    base: *mut L,
    /// Elements from one sample to the next.
    step: isize,
    pub count: usize,
    pub classes: usize,
    /// Elements from one class to the next.
    pub class_stride: isize,
    pub layout: Layout,
}

impl<L: Storage> Group<L> {
    /// The rows of `count` samples that follow `first`, along the inner index or the outer one.
    ///
    /// # Safety
    /// `rows` has `classes` entries for each of the samples, which can be read, and written where [`column_mut`](Self::column_mut) and its
    /// like are used, as long as the group is.
    #[inline(always)]
    pub unsafe fn new(rows: &Rows, classes: usize, first: Place, count: usize, along_inner: bool) -> Self {
        let step = if along_inner { rows.inner } else { rows.outer } as isize;
        let layout = if rows.class == 1 {
            Layout::Rows
        } else if step == 1 || count == 1 {
            Layout::Columns
        } else {
            Layout::Scattered
        };
        Self { base: rows.at(first).cast(), step, count, classes, class_stride: rows.class as isize, layout }
    }

    /// The address of an entry.
    #[inline(always)]
    fn at(&self, lane: usize, class: usize) -> *mut L {
        debug_assert!(lane < self.count && class < self.classes);
        self.base.wrapping_offset(lane as isize * self.step + class as isize * self.class_stride)
    }

    /// The logit of a class.
    #[inline(always)]
    pub fn read(&self, lane: usize, class: usize) -> L {
        // SAFETY: `new` was promised that the entry can be read.
        unsafe { self.at(lane, class).read() }
    }

    /// # Safety
    /// The entry can be written.
    #[inline(always)]
    pub unsafe fn write(&self, lane: usize, class: usize, value: L) {
        // SAFETY: the caller's promise.
        unsafe { self.at(lane, class).write(value) };
    }

    /// The rows of a group whose classes lie side by side, or of its copy.
    #[inline(always)]
    pub fn lines(&self, copy: Option<*mut L>) -> Lines<L> {
        debug_assert!(copy.is_some() || self.layout == Layout::Rows);
        let (base, step) = copy.map_or((self.base, self.step), |copy| (copy, self.classes as isize));
        Lines { base, step, count: self.count, classes: self.classes }
    }

    /// The samples' entries of a class, in [`Layout::Columns`].
    ///
    /// # Safety
    /// Nothing writes them while the slice is alive.
    #[inline(always)]
    pub unsafe fn column<'a>(&self, class: usize) -> &'a [L] {
        debug_assert!(self.layout == Layout::Columns);
        // SAFETY: `new` was promised the entries, which lie side by side; the caller, that nobody writes them.
        unsafe { std::slice::from_raw_parts(self.at(0, class), self.count) }
    }

    /// As [`column`](Self::column), to write.
    ///
    /// # Safety
    /// The entries can be written, and nothing else uses them while the slice is alive.
    #[inline(always)]
    pub unsafe fn column_mut<'a>(&self, class: usize) -> &'a mut [L] {
        debug_assert!(self.layout == Layout::Columns);
        // SAFETY: as in `column`.
        unsafe { std::slice::from_raw_parts_mut(self.at(0, class), self.count) }
    }

    /// Copies all entries to rows that lie `stride` elements apart.
    pub fn gather(&self, to: &mut [L], stride: usize) {
        for class in 0..self.classes {
            for lane in 0..self.count {
                to[lane * stride + class] = self.read(lane, class);
            }
        }
    }

    /// The reverse of [`gather`](Self::gather).
    ///
    /// # Safety
    /// The entries can be written.
    pub unsafe fn scatter(&self, from: &[L], stride: usize) {
        for class in 0..self.classes {
            for lane in 0..self.count {
                // SAFETY: the caller's promise.
                unsafe { self.write(lane, class, from[lane * stride + class]) };
            }
        }
    }
}

/// Rows whose classes lie side by side.
#[derive(Clone, Copy)]
pub(super) struct Lines<L> {
    base: *mut L,
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

    /// # Safety
    /// The row can be read, and nothing writes it while the slice is alive.
    #[inline(always)]
    pub unsafe fn row<'a>(&self, lane: usize) -> &'a [L] {
        debug_assert!(lane < self.count);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start(lane), self.classes) }
    }

    /// # Safety
    /// The row can be written, and nothing else uses it while the slice is alive.
    #[inline(always)]
    pub unsafe fn row_mut<'a>(&self, lane: usize) -> &'a mut [L] {
        debug_assert!(lane < self.count);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start(lane), self.classes) }
    }
}
