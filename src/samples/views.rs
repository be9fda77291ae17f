//! Where the values of a sample are: one value per sample, and a row per sample.
#![allow(unsafe_code, reason = "elements are read through the caller's addresses, after all checks")]

use crate::tensor::{DType, RawTensor};

/// One value per sample, or the same for all, at any strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerSample {
    pub data: *mut u8,
    pub dtype: DType,
    pub strides: [i64; 2],
}

impl PerSample {
    pub fn new(tensor: &RawTensor) -> Self {
        Self { data: tensor.data, dtype: tensor.dtype, strides: [tensor.strides[0], tensor.strides[1]] }
    }

    /// The same value for every sample.
    pub fn one(tensor: &RawTensor) -> Self {
        Self { strides: [0, 0], ..Self::new(tensor) }
    }

    /// The address of a sample's value.
    #[inline]
    fn at(&self, place: Place) -> *mut u8 {
        let elements = place.outer as i64 * self.strides[0] + place.inner as i64 * self.strides[1];
        self.data.wrapping_offset((elements * self.dtype.size() as i64) as isize)
    }

    /// # Safety
    /// The tensor was checked, has an element for the place, and may be read.
    #[inline]
    pub unsafe fn integer(&self, place: Place) -> i64 {
        let address = self.at(place);
        // SAFETY: the caller's promise; `check` found the address aligned.
        unsafe {
            match self.dtype {
                DType::I64 => address.cast::<i64>().read(),
                DType::I32 => i64::from(address.cast::<i32>().read()),
                _ => i64::from(address.read()),
            }
        }
    }

    /// The values of samples that follow `first`, as many as `to` has room for.
    ///
    /// # Safety
    /// As [`integer`](Self::integer), for each of them.
    #[inline]
    pub unsafe fn integers(&self, first: Place, along_inner: bool, to: &mut [i64]) {
        let (start, stride) = (self.at(first), self.strides[usize::from(along_inner)] as isize);
        macro_rules! read {
            ($integer:ty) => {{
                let start = start.cast::<$integer>();
                if stride == 1 {
                    // SAFETY: the caller's promise, for values that lie side by side; `check` found the address aligned.
                    let from = unsafe { std::slice::from_raw_parts(start, to.len()) };
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from.into());
                } else {
                    for (index, to) in to.iter_mut().enumerate() {
                        // SAFETY: as above.
                        *to = unsafe { start.wrapping_offset(index as isize * stride).read() }.into();
                    }
                }
            }};
        }
        match self.dtype {
            DType::I64 => read!(i64),
            DType::I32 => read!(i32),
            _ => read!(u8),
        }
    }

    /// # Safety
    /// As [`integer`](Self::integer).
    #[inline]
    pub unsafe fn real(&self, place: Place) -> f64 {
        let address = self.at(place);
        // SAFETY: as in `integer`.
        unsafe {
            match self.dtype {
                DType::F64 => address.cast::<f64>().read(),
                _ => f64::from(address.cast::<f32>().read()),
            }
        }
    }

    /// # Safety
    /// As [`integer`](Self::integer), and the element may be written.
    pub unsafe fn write(&self, place: Place, value: f64) {
        let address = self.at(place);
        // SAFETY: the caller's promise; `check` found the address aligned.
        unsafe {
            match self.dtype {
                DType::F64 => address.cast::<f64>().write(value),
                _ => address.cast::<f32>().write(value as f32),
            }
        }
    }
}

/// Where a sample is: its first index, and the one behind the classes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub outer: usize,
    pub inner: usize,
}

/// A row of logits, or of gradients, per sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub data: *mut u8,
    pub dtype: DType,
    /// Elements from one outer index to the next.
    pub outer: i64,
    /// Elements from one class to the next.
    pub class: i64,
    /// Elements from one sample to the next with the same outer index.
    pub inner: i64,
}

impl Rows {
    pub fn new(tensor: &RawTensor) -> Self {
        let [outer, class, inner] = tensor.strides;
        Self { data: tensor.data, dtype: tensor.dtype, outer, class, inner }
    }

    /// The address of a sample's class 0.
    #[inline]
    pub fn at(&self, place: Place) -> *mut u8 {
        let elements = place.outer as i64 * self.outer + place.inner as i64 * self.inner;
        self.data.wrapping_offset((elements * self.dtype.size() as i64) as isize)
    }
}
