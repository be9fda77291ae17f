//! The description of a tensor, and what can be checked without reading an element of it.

use std::fmt;
use std::ops::Range;

use super::{DType, Device, Element, MAX_DIMENSIONS};
use crate::error::{Result, fail};

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
    /// `length` bytes from `start` on.
    pub fn at(start: *const u8, length: usize) -> Self {
        Self((start as usize).checked_add(length).map(|end| start as usize..end))
    }

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
    pub fn scalar<T: Element>(data: *mut T) -> Self {
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
