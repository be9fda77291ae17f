//! Views of the caller's tensors: an element type, a device, up to three dimensions with strides in elements.
//!
//! [`TensorRef`] and [`TensorMut`] borrow slices and are checked when they are made. Inside, both become a [`RawTensor`], which is also what
//! the C ABI hands over: an address with a description, checked once by [`RawTensor::check`], before anything is read.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use half::{bf16, f16};

use crate::error::{Result, fail};

/// The most dimensions that a view can have.
pub const MAX_DIMENSIONS: usize = 3;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 8-bit integer.
    U8,
}

impl DType {
    /// Bytes of an element, which are its alignment too.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// Whether logits can have this type.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::Bf16)
    }

    /// The type of the loss that logits of this type have.
    pub(crate) const fn of_loss(self) -> Self {
        if matches!(self, Self::F64) { Self::F64 } else { Self::F32 }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::U8 => "u8",
        })
    }
}

/// The kind of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Memory of the host.
    #[default]
    Cpu,
    /// Memory of a CUDA device.
    Cuda,
}

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// The kind of device.
    pub kind: DeviceKind,
    /// Which one of its kind; 0 for the CPU.
    pub id: i32,
}

impl Device {
    /// The host.
    pub const CPU: Self = Self { kind: DeviceKind::Cpu, id: 0 };

    /// The CUDA device number `id`.
    pub const fn cuda(id: i32) -> Self {
        Self { kind: DeviceKind::Cuda, id }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Cuda => write!(f, "cuda:{}", self.id),
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can be the element of a tensor.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// Its name in views.
    const DTYPE: DType;
}

/// A Rust type that logits and gradients can have.
pub trait Logit: Element {
    /// The type of the loss: `f64` for `f64`, else `f32`.
    type Loss: Element + Default;
}

/// A Rust type that targets can have.
pub trait Target: Element {}

macro_rules! elements {
    ($($ty:ty => $dtype:ident),+ $(,)?) => { $(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
        }
    )+ };
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => Bf16, i64 => I64, i32 => I32, u8 => U8);

impl Logit for f32 {
    type Loss = f32;
}
impl Logit for f64 {
    type Loss = f64;
}
impl Logit for f16 {
    type Loss = f32;
}
impl Logit for bf16 {
    type Loss = f32;
}
impl Target for i64 {}
impl Target for i32 {}
impl Target for u8 {}

/// The description of a tensor: what the library works with inside. An address in it is only read after [`check`](Self::check).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawTensor {
    /// The element with index 0 in every dimension.
    pub data: *mut u8,
    pub device: Device,
    pub dtype: DType,
    pub ndim: usize,
    /// Sizes; 1 beyond `ndim`.
    pub shape: [i64; MAX_DIMENSIONS],
    /// Steps in elements; 0 beyond `ndim`.
    pub strides: [i64; MAX_DIMENSIONS],
}

/// The bytes of a tensor; `None` stands for all there are.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(Option<Range<usize>>);

impl Bytes {
    /// Whether some byte may belong to both.
    pub fn overlap(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end,
            _ => true,
        }
    }
}

impl RawTensor {
    /// One value without dimensions.
    fn scalar<T: Element>(data: *mut T) -> Self {
        Self { data: data.cast(), device: Device::CPU, dtype: T::DTYPE, ndim: 0, shape: [1; MAX_DIMENSIONS], strides: [0; MAX_DIMENSIONS] }
    }

    /// Sizes of the dimensions there are.
    pub fn sizes(&self) -> &[i64] {
        &self.shape[..self.ndim]
    }

    /// Whether it is one value: without dimensions, or of shape (1).
    pub fn is_one_value(&self) -> bool {
        matches!(self.sizes(), [] | [1])
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.sizes().contains(&0)
    }

    /// Checks all that can be checked without reading: sizes, overflow, a null or misaligned address. `name` is what the messages call it. Gives its
    /// byte range.
    pub fn check(&self, name: &str) -> Result<Bytes> {
        if let Some(&size) = self.sizes().iter().find(|&&size| size < 0) {
            fail!(InvalidShape, "{name}.shape {} has the negative size {size}", Sizes(self.sizes()));
        }
        let elements = self.sizes().iter().try_fold(1i64, |product, &size| product.checked_mul(size));
        let bytes = elements.and_then(|elements| elements.checked_mul(self.dtype.size() as i64));
        if bytes.is_none() && !self.is_empty() {
            fail!(InvalidShape, "{name}.shape {} has more bytes than an address space", Sizes(self.sizes()));
        }
        if self.is_empty() {
            return Ok(self.bytes());
        }
        if self.data.is_null() {
            fail!(InvalidArgument, "{name}.data is NULL, but its shape {} is not empty", Sizes(self.sizes()));
        }
        let address = self.data as usize;
        if !address.is_multiple_of(self.dtype.size()) {
            fail!(InvalidArgument, "{name}.data = {address:#x} is not aligned to the {} bytes of {}", self.dtype.size(), self.dtype);
        }
        let bytes = self.bytes();
        if bytes.0.is_none() {
            let strides = Sizes(&self.strides[..self.ndim]);
            fail!(InvalidShape, "{name}.strides {strides} reach beyond the address space for shape {}", Sizes(self.sizes()));
        }
        Ok(bytes)
    }

    /// The addresses from the first byte to behind the last one; `None` where they do not fit an address space. Empty for an empty tensor.
    pub fn byte_range(&self) -> Option<Range<usize>> {
        let start = self.data as usize;
        if self.is_empty() {
            return Some(start..start);
        }
        let (mut low, mut high) = (0i64, 0i64);
        for (&size, &stride) in self.sizes().iter().zip(&self.strides) {
            let reach = (size - 1).checked_mul(stride)?;
            low = low.checked_add(reach.min(0))?;
            high = high.checked_add(reach.max(0))?;
        }
        let bytes = |elements: i64| isize::try_from(elements.checked_mul(self.dtype.size() as i64)?).ok();
        Some(start.checked_add_signed(bytes(low)?)?..start.checked_add_signed(bytes(high.checked_add(1)?)?)?)
    }

    /// Whether some byte may belong to both; by byte ranges, so interleaved tensors count as overlapping.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.bytes().overlap(&other.bytes())
    }

    /// Its byte range, to be compared with others'.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.byte_range())
    }

    /// Whether both describe the same elements in the same order.
    pub fn same_view(&self, other: &Self) -> bool {
        let same_steps = (0..self.ndim).all(|d| self.shape[d] <= 1 || self.strides[d] == other.strides[d]);
        self.data == other.data && self.dtype == other.dtype && self.sizes() == other.sizes() && same_steps
    }

    /// Checks that no element is written twice: each dimension steps over all that the narrower ones cover.
    pub fn check_writable(&self, name: &str) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut steps: [(u64, u64); MAX_DIMENSIONS] =
            std::array::from_fn(|d| if self.shape[d] > 1 { (self.strides[d].unsigned_abs(), self.shape[d] as u64) } else { (u64::MAX, 1) });
        steps.sort_unstable();
        let mut covered = 0u64;
        for (stride, size) in steps {
            if stride <= covered {
                let strides = Sizes(&self.strides[..self.ndim]);
                fail!(InvalidShape, "{name}.strides {strides} with shape {} write an element twice", Sizes(self.sizes()));
            }
            covered = covered.saturating_add(stride.saturating_mul(size - 1));
        }
        Ok(())
    }

    /// Checks the shape against `expected`.
    pub fn check_shape(&self, name: &str, expected: &[i64], of: &str) -> Result<()> {
        if self.sizes() != expected {
            fail!(InvalidShape, "{name}.shape = {} differs from {of} = {}", Sizes(self.sizes()), Sizes(expected));
        }
        Ok(())
    }
}

/// Writes sizes or strides as `(4, 10)`.
pub(crate) struct Sizes<'a>(pub &'a [i64]);

impl fmt::Display for Sizes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (position, size) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str(")")
    }
}

/// Describes `shape` over memory that begins at `data` and holds `length` elements; row-major where `strides` is not given.
fn describe<T: Element>(data: *const T, length: usize, shape: &[usize], strides: Option<(usize, &[isize])>) -> Result<RawTensor> {
    if shape.len() > MAX_DIMENSIONS {
        fail!(InvalidShape, "a view has {} dimensions, but at most {MAX_DIMENSIONS} are possible", shape.len());
    }
    let mut tensor = RawTensor {
        data: data.cast_mut().cast(),
        device: Device::CPU,
        dtype: T::DTYPE,
        ndim: shape.len(),
        shape: [1; MAX_DIMENSIONS],
        strides: [0; MAX_DIMENSIONS],
    };
    for (to, &size) in tensor.shape.iter_mut().zip(shape) {
        let Ok(size) = i64::try_from(size) else { fail!(InvalidShape, "a view has the size {size} in a dimension") };
        *to = size;
    }
    let mut offset = 0;
    match strides {
        Some((start, strides)) => {
            if strides.len() != shape.len() {
                fail!(InvalidShape, "a view has {} dimensions, but {} strides", shape.len(), strides.len());
            }
            for (to, &stride) in tensor.strides.iter_mut().zip(strides) {
                *to = stride as i64;
            }
            offset = start;
        }
        None => {
            let mut step = 1i64;
            for dimension in (0..shape.len()).rev() {
                tensor.strides[dimension] = step;
                step = step.saturating_mul(tensor.shape[dimension].max(1));
            }
        }
    }
    tensor.data = tensor.data.wrapping_add(offset.saturating_mul(size_of::<T>()));
    tensor.check("view")?;
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
        Ok(Self { raw: describe(slice.as_ptr(), slice.len(), shape, None)?, borrows: PhantomData })
    }

    /// The tensor of this shape whose first element is `slice[offset]`, with steps in elements. A step of 0 repeats an element.
    ///
    /// # Errors
    /// As [`new`](Self::new); an element outside of the slice.
    pub fn with_strides<T: Element>(slice: &'a [T], shape: &[usize], offset: usize, strides: &[isize]) -> Result<Self> {
        Ok(Self { raw: describe(slice.as_ptr(), slice.len(), shape, Some((offset, strides)))?, borrows: PhantomData })
    }

    /// One value without dimensions.
    pub fn scalar<T: Element>(value: &'a T) -> Self {
        Self { raw: RawTensor::scalar(std::ptr::from_ref(value).cast_mut()), borrows: PhantomData }
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
        Ok(Self { raw: describe(slice.as_mut_ptr(), slice.len(), shape, None)?, borrows: PhantomData })
    }

    /// The tensor of this shape whose first element is `slice[offset]`, with steps in elements that name no element twice.
    ///
    /// # Errors
    /// As [`new`](Self::new); an element outside of the slice. An element with two places.
    pub fn with_strides<T: Element>(slice: &'a mut [T], shape: &[usize], offset: usize, strides: &[isize]) -> Result<Self> {
        let raw = describe(slice.as_mut_ptr(), slice.len(), shape, Some((offset, strides)))?;
        raw.check_writable("view")?;
        Ok(Self { raw, borrows: PhantomData })
    }

    /// One value without dimensions.
    pub fn scalar<T: Element>(value: &'a mut T) -> Self {
        Self { raw: RawTensor::scalar(std::ptr::from_mut(value)), borrows: PhantomData }
    }
}

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
