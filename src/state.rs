//! Where S, A, c and the counters live: memory of the criterion's own, or of the caller's.
#![allow(unsafe_code, reason = "state may live in memory that the caller of the C ABI owns")]

use std::marker::PhantomData;

use bytemuck::Zeroable;

use crate::error::{Error, ErrorKind, Result, fail};
use crate::statistics::COUNTERS;
use crate::tensor::{Bytes, DType, Device, Element, RawTensor};

/// Memory of the caller's for the state, where it is given: S (K, K) f32, A (K, K) i64, c (K) i64, counters (`COUNTERS`) i64.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StateMemory {
    pub soft_labels: Option<RawTensor>,
    pub sums: Option<RawTensor>,
    pub counts: Option<RawTensor>,
    pub counters: Option<RawTensor>,
    /// The memory holds a state already, which is taken over as it is; else it is set to the state of a new criterion.
    pub adopt: bool,
}

impl StateMemory {
    fn check_apart(&self) -> Result<()> {
        for (a, b) in [
            (self.soft_labels, self.sums),
            (self.soft_labels, self.counts),
            (self.soft_labels, self.counters),
            (self.sums, self.counts),
            (self.sums, self.counters),
            (self.counts, self.counters),
        ] {
            if let (Some(a), Some(b)) = (a, b)
                && a.overlaps(&b)
            {
                fail!(InvalidArgument, "the memory of soft_labels, sums, counts and counters overlaps");
            }
        }
        Ok(())
    }
}

/// S, A, c and the counters.
#[derive(Debug)]
pub(crate) struct State {
    /// S: a row per class.
    pub soft_labels: Matrix<f32>,
    /// A in units of 2^-30: a row per class.
    pub sums: Matrix<i64>,
    /// c: one row.
    pub counts: Matrix<i64>,
    /// One row; see [`Counter`](crate::statistics::Counter).
    pub counters: Matrix<i64>,
    /// Of all four, which stay where they are.
    bytes: [Bytes; 4],
}

impl State {
    /// State for `classes` classes, all zeros where memory is the criterion's own.
    ///
    /// # Safety
    /// What `memory` names can be read and written by nobody else while a call on the criterion runs, until the criterion is dropped.
    pub unsafe fn new(classes: usize, memory: &StateMemory) -> Result<Self> {
        memory.check_apart()?;
        // SAFETY: the caller's promise is handed on.
        unsafe {
            Ok(Self::of(
                Matrix::new("soft_labels", classes, classes, memory.soft_labels)?,
                Matrix::new("sums", classes, classes, memory.sums)?,
                Matrix::new("counts", 1, classes, memory.counts)?,
                Matrix::new("counters", 1, COUNTERS, memory.counters)?,
            ))
        }
    }

    /// The description of a state on a CUDA device: the caller's memory, and what `allocate` gives for a name and a number of bytes (`None` for
    /// more than an address space). None of it is read or written from here.
    ///
    /// # Safety
    /// As [`new`](Self::new), for memory of the device.
    pub unsafe fn on_device(
        classes: usize,
        memory: &StateMemory,
        device: Device,
        mut allocate: impl FnMut(&str, Option<usize>) -> Result<u64>,
    ) -> Result<Self> {
        memory.check_apart()?;
        fn matrix<T: Element + Zeroable>(
            name: &str,
            [rows, columns]: [usize; 2],
            given: Option<RawTensor>,
            device: Device,
            allocate: &mut dyn FnMut(&str, Option<usize>) -> Result<u64>,
        ) -> Result<Matrix<T>> {
            if let Some(given) = given {
                return Matrix::borrowed(name, rows, columns, &given, device);
            }
            let bytes = rows.checked_mul(columns).and_then(|entries| entries.checked_mul(size_of::<T>()));
            let memory = Memory::Borrowed(allocate(name, bytes)? as *mut T);
            Ok(Matrix { memory, rows, columns, row_stride: columns, device })
        }
        Ok(Self::of(
            matrix("soft_labels", [classes, classes], memory.soft_labels, device, &mut allocate)?,
            matrix("sums", [classes, classes], memory.sums, device, &mut allocate)?,
            matrix("counts", [1, classes], memory.counts, device, &mut allocate)?,
            matrix("counters", [1, COUNTERS], memory.counters, device, &mut allocate)?,
        ))
    }

    fn of(soft_labels: Matrix<f32>, sums: Matrix<i64>, counts: Matrix<i64>, counters: Matrix<i64>) -> Self {
        let bytes = [soft_labels.as_raw(), sums.as_raw(), counts.as_raw(), counters.as_raw()].map(|own| own.bytes());
        Self { soft_labels, sums, counts, counters, bytes }
    }

    /// The bytes of S, A, c and the counters.
    pub fn bytes(&self) -> &[Bytes; 4] {
        &self.bytes
    }
}

/// Rows of equal length, in memory of its own or borrowed from the caller.
#[derive(Debug)]
pub(crate) struct Matrix<T> {
    memory: Memory<T>,
    rows: usize,
    columns: usize,
    /// Elements from one row to the next, at least `columns`.
    row_stride: usize,
    /// Where the memory is. That of a CUDA device is `Borrowed`, described, and never touched from here.
    device: Device,
}

#[derive(Debug)]
enum Memory<T> {
    Owned(Box<[T]>),
    Borrowed(*mut T),
}

// SAFETY: borrowed memory is used like owned memory: by one thread at a time, the one that holds the criterion.
unsafe impl<T: Send> Send for Memory<T> {}
// SAFETY: shared access to a matrix only reads.
unsafe impl<T: Sync> Sync for Memory<T> {}

impl<T: Element + Zeroable> Matrix<T> {
    /// Zeros.
    pub fn zeros(name: &str, rows: usize, columns: usize) -> Result<Self> {
        let length =
            rows.checked_mul(columns).filter(|length| length.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize));
        let memory = length.and_then(|length| bytemuck::allocation::try_zeroed_slice_box(length).ok());
        let Some(memory) = memory else {
            fail!(OutOfMemory, "{name}: {rows} x {columns} elements of {} bytes could not be allocated", size_of::<T>());
        };
        Ok(Self { memory: Memory::Owned(memory), rows, columns, row_stride: columns, device: Device::CPU })
    }

    /// Zeros of its own, or the caller's memory as it is.
    ///
    /// # Safety
    /// As [`State::new`].
    unsafe fn new(name: &str, rows: usize, columns: usize, memory: Option<RawTensor>) -> Result<Self> {
        let Some(memory) = memory else { return Self::zeros(name, rows, columns) };
        Self::borrowed(name, rows, columns, &memory, Device::CPU)
    }

    /// The caller's memory on `device` as it is.
    fn borrowed(name: &str, rows: usize, columns: usize, memory: &RawTensor, device: Device) -> Result<Self> {
        let shape = [rows as i64, columns as i64];
        let shape = if rows == 1 { &shape[1..] } else { &shape[..] };
        if memory.dtype != T::DTYPE {
            fail!(InvalidDtype, "{name}.dtype = {}, but {} is required", memory.dtype, T::DTYPE);
        }
        if memory.device != device {
            fail!(InvalidDevice, "{name}.device = {}, but the criterion is on {device}", memory.device);
        }
        memory.check_shape(name, shape, "the required shape")?;
        memory.check(name)?;
        let column_stride = memory.strides[memory.ndim - 1];
        let row_stride = if rows == 1 { columns as i64 } else { memory.strides[0] };
        if column_stride != 1 || row_stride < columns as i64 {
            fail!(
                InvalidShape,
                "{name}: rows must be contiguous and at least {columns} elements apart, but the strides are {row_stride} and {column_stride}"
            );
        }
        Ok(Self { memory: Memory::Borrowed(memory.data.cast()), rows, columns, row_stride: row_stride as usize, device })
    }

    /// The elements of row `row`.
    #[inline]
    pub fn row(&self, row: usize) -> &[T] {
        self.check_row(row);
        match &self.memory {
            Memory::Owned(memory) => &memory[row * self.row_stride..][..self.columns],
            // SAFETY: `new` was promised that all rows can be read while a call runs, and the row is one of them.
            Memory::Borrowed(data) => unsafe { std::slice::from_raw_parts(data.add(row * self.row_stride), self.columns) },
        }
    }

    /// The elements of row `row`, to write.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        self.check_row(row);
        match &mut self.memory {
            Memory::Owned(memory) => &mut memory[row * self.row_stride..][..self.columns],
            // SAFETY: as in `row`; nobody else writes while a call runs, and `self` is borrowed exclusively.
            Memory::Borrowed(data) => unsafe { std::slice::from_raw_parts_mut(data.add(row * self.row_stride), self.columns) },
        }
    }

    /// The rows, with all that finding one needs at hand.
    pub fn view(&self) -> View<'_, T> {
        assert!(self.device == Device::CPU, "the state is on {}: read it through a stream", self.device);
        let data = match &self.memory {
            Memory::Owned(memory) => memory.as_ptr(),
            Memory::Borrowed(data) => *data,
        };
        View { data, rows: self.rows, columns: self.columns, row_stride: self.row_stride, matrix: PhantomData }
    }

    #[inline]
    fn check_row(&self, row: usize) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert!(self.device == Device::CPU, "the state is on {}: read it through a stream", self.device);
    }

    /// Rows that follow each other in memory of the matrix's own.
    pub fn rows_mut(&mut self, rows: std::ops::Range<usize>) -> &mut [T] {
        match &mut self.memory {
            Memory::Owned(memory) => &mut memory[rows.start * self.columns..rows.end * self.columns],
            Memory::Borrowed(_) => unreachable!("a matrix with memory of its own"),
        }
    }

    /// All elements, where no gap lies between the rows.
    pub fn contiguous(&self) -> Option<&[T]> {
        assert!(self.device == Device::CPU, "the state is on {}: read it through a stream", self.device);
        if self.rows > 1 && self.row_stride != self.columns {
            return None;
        }
        match &self.memory {
            Memory::Owned(memory) => Some(memory),
            // SAFETY: as in `row`, for all rows, which follow each other.
            Memory::Borrowed(data) => Some(unsafe { std::slice::from_raw_parts(*data, self.rows * self.columns) }),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Sets every element to `value`.
    pub fn fill(&mut self, value: T) {
        for row in 0..self.rows {
            self.row_mut(row).fill(value);
        }
    }

    /// A description to read by: two dimensions, or one where there is one row.
    pub fn as_raw(&self) -> RawTensor {
        self.describe(match &self.memory {
            Memory::Owned(memory) => memory.as_ptr().cast_mut(),
            Memory::Borrowed(data) => *data,
        })
    }

    /// A description to read and write by.
    pub fn as_raw_mut(&mut self) -> RawTensor {
        let data = match &mut self.memory {
            Memory::Owned(memory) => memory.as_mut_ptr(),
            Memory::Borrowed(data) => *data,
        };
        self.describe(data)
    }

    fn describe(&self, data: *mut T) -> RawTensor {
        let (rows, columns, stride) = (self.rows as i64, self.columns as i64, self.row_stride as i64);
        let (ndim, shape, strides) = if self.rows == 1 { (1, [columns, 1, 1], [1, 0, 0]) } else { (2, [rows, columns, 1], [stride, 1, 0]) };
        RawTensor { data: data.cast(), device: self.device, dtype: T::DTYPE, ndim, shape, strides }
    }
}

/// The rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a, T> {
    data: *const T,
    rows: usize,
    columns: usize,
    row_stride: usize,
    matrix: PhantomData<&'a Matrix<T>>,
}

// SAFETY: a view is a shared borrow of the matrix.
unsafe impl<T: Sync> Sync for View<'_, T> {}

impl<'a, T> View<'a, T> {
    /// The elements of row `row`.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.rows);
        // SAFETY: the matrix has this row, and is borrowed for 'a.
        unsafe { std::slice::from_raw_parts(self.data.add(row * self.row_stride), self.columns) }
    }
}

/// A vector of `length` default elements, or the error that names it.
pub(crate) fn try_vec<T: Default>(name: &str, length: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(length).map_err(|_| {
        Error::new(ErrorKind::OutOfMemory, format!("{name}: {length} elements of {} bytes could not be allocated", size_of::<T>()))
    })?;
    vector.resize_with(length, T::default);
    Ok(vector)
}

/// A copy of `values`, or the error that names it.
pub(crate) fn try_copy<T: Default + Copy>(name: &str, values: &[T]) -> Result<Vec<T>> {
    let mut copy = try_vec(name, values.len())?;
    copy.copy_from_slice(values);
    Ok(copy)
}

/// The dtype that soft labels are given in.
pub(crate) fn is_soft_label_dtype(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}
