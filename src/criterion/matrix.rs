//! A (K, K) matrix of the caller's, checked and read.
#![allow(unsafe_code, reason = "entries are read through the caller's address, after all checks")]

use crate::error::{Result, fail};
use crate::state::is_soft_label_dtype;
use crate::tensor::{DType, Device, RawTensor};

/// Checks the description of a (K, K) matrix of f32 or f64.
pub(super) fn check_matrix(name: &str, matrix: &RawTensor, classes: usize, device: Device) -> Result<()> {
    if !is_soft_label_dtype(matrix.dtype) {
        fail!(InvalidDtype, "{name}.dtype = {} is not one of f32, f64", matrix.dtype);
    }
    if matrix.device != device {
        fail!(InvalidDevice, "{name}.device = {}, but the criterion is on {device}", matrix.device);
    }
    matrix.check_shape(name, &[classes as i64, classes as i64], "(num_classes, num_classes)")?;
    matrix.check(name).map(|_| ())
}

/// Checks a (K, K) matrix of f32 or f64 and gives its entries, in row-major order, as f32.
///
/// # Safety
/// `matrix` describes memory that can be read for as long as the result is used.
pub(crate) unsafe fn read_matrix(name: &str, matrix: &RawTensor, classes: usize, device: Device) -> Result<impl Fn(usize) -> f32 + use<>> {
    check_matrix(name, matrix, classes, device)?;
    let matrix = *matrix;
    Ok(move |index: usize| {
        let (row, column) = ((index / classes) as i64, (index % classes) as i64);
        let offset = row * matrix.strides[0] + column * matrix.strides[1];
        let address = matrix.data.wrapping_offset((offset * matrix.dtype.size() as i64) as isize);
        // SAFETY: the caller's promise; `check` found the address aligned and the strides in range.
        unsafe { if matrix.dtype == DType::F64 { address.cast::<f64>().read() as f32 } else { address.cast::<f32>().read() } }
    })
}
