//! Views of the caller's tensors for the Rust API: of slices, which are checked when a view is made, and of memory that the caller vouches for.
#![allow(unsafe_code, reason = "memory of a device has no slice; its owner vouches for it")]

use std::ffi::c_void;
use std::marker::PhantomData;

use super::{DType, Device, Element, MAX_DIMENSIONS, RawTensor, Sizes};
use crate::error::{Result, fail};

// SAFETY: a description does nothing by itself. What reads and writes through it are views: a `TensorRef` as a shared borrow of numbers does, a `TensorMut`
// as an exclusive one; both may go to another thread, and so may the memory of a device, whoever's thread is current. Inside, reading and writing is unsafe.
unsafe impl Send for RawTensor {}
// SAFETY: as above.
unsafe impl Sync for RawTensor {}

/// Describes `shape` over memory of `device` whose first element is at `data`; row-major where `strides` are not given.
fn described(data: *mut c_void, dtype: DType, device: Device, shape: &[usize], strides: Option<&[isize]>) -> Result<RawTensor> {
    if shape.len() > MAX_DIMENSIONS {
        fail!(InvalidShape, "a view has {} dimensions, but at most {MAX_DIMENSIONS} are possible", shape.len());
    }
    let mut tensor =
        RawTensor { data: data.cast(), device, dtype, ndim: shape.len(), shape: [1; MAX_DIMENSIONS], strides: [0; MAX_DIMENSIONS] };
    for (to, &size) in tensor.shape.iter_mut().zip(shape) {
        let Ok(size) = i64::try_from(size) else { fail!(InvalidShape, "a view has the size {size} in a dimension") };
        *to = size;
    }
    match strides {
        Some(strides) => {
            if strides.len() != shape.len() {
                fail!(InvalidShape, "a view has {} dimensions, but {} strides", shape.len(), strides.len());
            }
            for (to, &stride) in tensor.strides.iter_mut().zip(strides) {
                *to = stride as i64;
            }
        }
        None => {
            let mut step = 1i64;
            for dimension in (0..shape.len()).rev() {
                tensor.strides[dimension] = step;
                step = step.saturating_mul(tensor.shape[dimension].max(1));
            }
        }
    }
    tensor.check("view")?;
    Ok(tensor)
}

/// Describes `shape` over a slice of `length` elements at `data`, from its element number `offset` on, and checks that all of it lies inside.
fn of_slice<T: Element>(data: *const T, length: usize, shape: &[usize], strides: Option<(usize, &[isize])>) -> Result<RawTensor> {
    let offset = strides.map_or(0, |(offset, _)| offset);
    // Saturating: an offset beyond the address space must not come around to the slice.
    let first = data.cast_mut().cast::<u8>().wrapping_add(offset.saturating_mul(size_of::<T>()));
    let tensor = described(first.cast(), T::DTYPE, Device::CPU, shape, strides.map(|(_, strides)| strides))?;
    let memory = data as usize..data as usize + length * size_of::<T>();
    let range = tensor.byte_range().unwrap_or(0..usize::MAX);
    if !range.is_empty() && (range.start < memory.start || range.end > memory.end) {
        fail!(InvalidShape, "a view of shape {} reaches beyond its slice of {length} elements", Sizes(tensor.sizes()));
    }
    Ok(tensor)
}

/// A tensor to read: a borrowed slice with a shape and strides.
///
/// ```
/// use ols::TensorRef;
/// let memory = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let rows = TensorRef::new(&memory, &[2, 3])?;
/// let transposed = TensorRef::with_strides(&memory, &[3, 2], 0, &[1, 3])?;
/// assert!(TensorRef::new(&memory, &[3, 3]).is_err());
/// # Ok::<(), ols::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    pub(crate) raw: RawTensor,
    borrows: PhantomData<&'a ()>,
}

impl<'a> TensorRef<'a> {
    /// The row-major tensor of this shape at the start of `slice`.
    ///
    /// # Errors
    /// More than three dimensions; a slice that is too short.
    pub fn new<T: Element>(slice: &'a [T], shape: &[usize]) -> Result<Self> {
        Ok(Self { raw: of_slice(slice.as_ptr(), slice.len(), shape, None)?, borrows: PhantomData })
    }

    /// The tensor of this shape whose first element is `slice[offset]`, with steps in elements. A step of 0 repeats an element.
    ///
    /// # Errors
    /// As [`new`](Self::new); an element outside of the slice.
    pub fn with_strides<T: Element>(slice: &'a [T], shape: &[usize], offset: usize, strides: &[isize]) -> Result<Self> {
        Ok(Self { raw: of_slice(slice.as_ptr(), slice.len(), shape, Some((offset, strides)))?, borrows: PhantomData })
    }

    /// One value without dimensions.
    pub fn scalar<T: Element>(value: &'a T) -> Self {
        Self { raw: RawTensor::scalar(std::ptr::from_ref(value).cast_mut()), borrows: PhantomData }
    }

    /// A tensor in memory that is no slice, such as a CUDA device's: `data` is the address of its first element, `strides` are in elements; `None`
    /// stands for row-major.
    ///
    /// # Errors
    /// More than three dimensions, or another number of strides; an address that is null or misaligned; sizes beyond an address space.
    ///
    /// # Safety
    /// Every element is in memory of `device` and can be read for `'a`; on a CUDA device until the work has run that calls with the view enqueue.
    pub unsafe fn from_raw(data: *const c_void, dtype: DType, device: Device, shape: &[usize], strides: Option<&[isize]>) -> Result<Self> {
        Ok(Self::borrowed(described(data.cast_mut(), dtype, device, shape, strides)?))
    }

    /// A view of memory that is known to live for `'a`.
    pub(crate) fn borrowed(raw: RawTensor) -> Self {
        Self { raw, borrows: PhantomData }
    }

    /// The address of the element with index 0 in every dimension.
    pub fn as_ptr(&self) -> *const c_void {
        self.raw.data.cast_const().cast()
    }
}

impl<'a, T: Element> From<&'a [T]> for TensorRef<'a> {
    /// A vector: one dimension.
    fn from(slice: &'a [T]) -> Self {
        // A slice is never longer than an address space, so its own length always fits.
        Self::new(slice, &[slice.len()]).unwrap_or_else(|_| unreachable!("a slice fits its own length"))
    }
}

/// A tensor to write: an exclusively borrowed slice with a shape and strides.
#[derive(Debug)]
pub struct TensorMut<'a> {
    pub(crate) raw: RawTensor,
    borrows: PhantomData<&'a mut ()>,
}

impl<'a> TensorMut<'a> {
    /// The row-major tensor of this shape at the start of `slice`.
    ///
    /// # Errors
    /// More than three dimensions; a slice that is too short.
    pub fn new<T: Element>(slice: &'a mut [T], shape: &[usize]) -> Result<Self> {
        Ok(Self { raw: of_slice(slice.as_mut_ptr(), slice.len(), shape, None)?, borrows: PhantomData })
    }

    /// The tensor of this shape whose first element is `slice[offset]`, with steps in elements that name no element twice.
    ///
    /// # Errors
    /// As [`new`](Self::new); an element outside of the slice. An element with two places.
    pub fn with_strides<T: Element>(slice: &'a mut [T], shape: &[usize], offset: usize, strides: &[isize]) -> Result<Self> {
        let raw = of_slice(slice.as_mut_ptr(), slice.len(), shape, Some((offset, strides)))?;
        raw.check_writable("view")?;
        Ok(Self { raw, borrows: PhantomData })
    }

    /// One value without dimensions.
    pub fn scalar<T: Element>(value: &'a mut T) -> Self {
        Self { raw: RawTensor::scalar(std::ptr::from_mut(value)), borrows: PhantomData }
    }

    /// As [`TensorRef::from_raw`], to write.
    ///
    /// # Errors
    /// As [`TensorRef::from_raw`]; an element with two places.
    ///
    /// # Safety
    /// Every element is in memory of `device`, can be written and is used by nobody else for `'a`; on a CUDA device until the work has run that calls
    /// with the view enqueue.
    pub unsafe fn from_raw(data: *mut c_void, dtype: DType, device: Device, shape: &[usize], strides: Option<&[isize]>) -> Result<Self> {
        let raw = described(data, dtype, device, shape, strides)?;
        raw.check_writable("view")?;
        Ok(Self::borrowed(raw))
    }

    /// A view of memory that is known to live, and to be nobody else's, for `'a`.
    pub(crate) fn borrowed(raw: RawTensor) -> Self {
        Self { raw, borrows: PhantomData }
    }

    /// The address of the element with index 0 in every dimension.
    pub fn as_mut_ptr(&mut self) -> *mut c_void {
        self.raw.data.cast()
    }
}

/// What a view tells of itself.
macro_rules! description {
    ($($view:ident),+) => { $(
        impl $view<'_> {
            /// The type of the elements.
            pub fn dtype(&self) -> DType {
                self.raw.dtype
            }

            /// Where the memory is.
            pub fn device(&self) -> Device {
                self.raw.device
            }

            /// Sizes, one per dimension.
            pub fn shape(&self) -> &[i64] {
                self.raw.sizes()
            }

            /// Steps in elements, one per dimension.
            pub fn strides(&self) -> &[i64] {
                &self.raw.strides[..self.raw.ndim]
            }
        }
    )+ };
}
description!(TensorRef, TensorMut);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_stay_inside_their_slice() {
        let memory = [0f32; 12];
        assert!(TensorRef::new(&memory, &[3, 4]).is_ok());
        assert!(TensorRef::new(&memory, &[4, 4]).is_err());
        assert!(TensorRef::with_strides(&memory, &[3, 4], 11, &[-4, -1]).is_ok());
        assert!(TensorRef::with_strides(&memory, &[3, 4], 10, &[-4, -1]).is_err());
        assert!(TensorRef::with_strides(&memory, &[3], 0, &[isize::MAX]).is_err());
        // As many bytes as an address space, which would come around to the beginning.
        assert!(TensorRef::with_strides(&memory, &[3], 1 << (usize::BITS - 2), &[1]).is_err());
        assert!(TensorRef::new(&memory, &[usize::MAX, 2]).is_err());
        assert!(TensorRef::new(&memory, &[0, usize::MAX >> 1]).is_ok());
    }

    #[test]
    fn outputs_name_no_element_twice() {
        let mut memory = [0f32; 12];
        assert!(TensorMut::with_strides(&mut memory, &[3, 4], 0, &[4, 1]).is_ok());
        assert!(TensorMut::with_strides(&mut memory, &[4, 3], 0, &[1, 4]).is_ok());
        assert!(TensorMut::with_strides(&mut memory, &[3, 4], 0, &[2, 1]).is_err());
        assert!(TensorMut::with_strides(&mut memory, &[3, 4], 0, &[0, 1]).is_err());
        assert!(TensorMut::with_strides(&mut memory, &[1, 4], 0, &[0, 1]).is_ok());
    }
}
