//! The tensor that crosses the ABI, and what DLPack's numbers mean here.

use std::ffi::c_void;
use std::fmt;

use safer_ffi::prelude::*;

use crate::error::{Result, fail};
use crate::tensor::{DType, Device, DeviceKind, MAX_DIMENSIONS, RawTensor};

/// `dtype_code` of signed integers.
pub const OLS_CODE_INT: u8 = 0;
/// `dtype_code` of unsigned integers.
pub const OLS_CODE_UINT: u8 = 1;
/// `dtype_code` of IEEE 754 floating-point numbers.
pub const OLS_CODE_FLOAT: u8 = 2;
/// `dtype_code` of bfloat16, the upper half of an IEEE 754 binary32.
pub const OLS_CODE_BFLOAT: u8 = 4;

/// Element types, for the `dtype` argument of `ols_tensor_0d` to `ols_tensor_3d`. The value is
/// `dtype_code | dtype_bits << 8`.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_dtype_t {
    /// IEEE 754 binary32: `float`.
    OLS_DTYPE_F32 = 0x2002,
    /// IEEE 754 binary64: `double`.
    OLS_DTYPE_F64 = 0x4002,
    /// IEEE 754 binary16.
    OLS_DTYPE_F16 = 0x1002,
    /// bfloat16: the upper half of an IEEE 754 binary32.
    OLS_DTYPE_BF16 = 0x1004,
    /// `int64_t`.
    OLS_DTYPE_I64 = 0x4000,
    /// `int32_t`.
    OLS_DTYPE_I32 = 0x2000,
    /// `uint8_t`.
    OLS_DTYPE_U8 = 0x0801,
}

/// Host memory.
pub const OLS_DEVICE_CPU: i32 = 1;
/// Memory of the CUDA device `device_id`.
pub const OLS_DEVICE_CUDA: i32 = 2;
/// Pinned host memory (`cudaMallocHost`); treated as host memory.
pub const OLS_DEVICE_CUDA_HOST: i32 = 3;
/// CUDA managed memory; not supported yet.
pub const OLS_DEVICE_CUDA_MANAGED: i32 = 13;

/// A non-owning view of up to three dimensions. `ols_tensor_0d` to `ols_tensor_3d` create views of
/// row-major host memory; `ols_dlpack.h` creates one from a `DLTensor`.
///
/// The layout of this struct is frozen: unlike the other structs, it never grows. As a member of
/// another struct, a tensor whose bytes are all 0 means "not given".
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_tensor_t {
    /// Address of the element whose indices are all 0, aligned to the size of an element. May be
    /// NULL only if the tensor is empty (some size is 0).
    pub data: *mut c_void,
    /// Where the memory is: one of the `OLS_DEVICE_` constants (DLPack's numbers).
    pub device_type: i32,
    /// Index of the CUDA device; ignored for host memory.
    pub device_id: i32,
    /// Kind of element: one of the `OLS_CODE_` constants (DLPack's numbers).
    pub dtype_code: u8,
    /// Bits per element: 8, 16, 32 or 64.
    pub dtype_bits: u8,
    /// Must be 1.
    pub dtype_lanes: u16,
    /// Number of dimensions, 0 to 3. A tensor with 0 dimensions is a single value.
    pub ndim: i32,
    /// Sizes of the first `ndim` dimensions, each >= 0; the remaining entries are ignored.
    pub shape: [i64; 3],
    /// Strides of the first `ndim` dimensions in elements (not bytes); the remaining entries are
    /// ignored. Strides may be negative. A stride of 0 repeats an element and is allowed for inputs
    /// only.
    pub strides: [i64; 3],
    /// Must be 0.
    pub reserved: u64,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<ols_tensor_t>() == 80, "ols_tensor_t is frozen");

/// DLPack's code and bits of each dtype.
const DTYPES: [(DType, u8, u8); 7] = [
    (DType::F32, OLS_CODE_FLOAT, 32),
    (DType::F64, OLS_CODE_FLOAT, 64),
    (DType::F16, OLS_CODE_FLOAT, 16),
    (DType::Bf16, OLS_CODE_BFLOAT, 16),
    (DType::I64, OLS_CODE_INT, 64),
    (DType::I32, OLS_CODE_INT, 32),
    (DType::U8, OLS_CODE_UINT, 8),
];

impl ols_tensor_t {
    /// Not given.
    pub(super) const ABSENT: Self = Self {
        data: std::ptr::null_mut(),
        device_type: 0,
        device_id: 0,
        dtype_code: 0,
        dtype_bits: 0,
        dtype_lanes: 0,
        ndim: 0,
        shape: [0; 3],
        strides: [0; 3],
        reserved: 0,
    };

    fn is_absent(&self) -> bool {
        let numbers =
            [self.device_type, self.device_id, self.dtype_code.into(), self.dtype_bits.into(), self.dtype_lanes.into(), self.ndim];
        self.data.is_null() && numbers == [0; 6] && self.shape == [0; 3] && self.strides == [0; 3] && self.reserved == 0
    }

    /// The description of `tensor` for the caller.
    pub(super) fn from_raw(tensor: &RawTensor) -> Self {
        let Some(&(_, dtype_code, dtype_bits)) = DTYPES.iter().find(|(dtype, ..)| *dtype == tensor.dtype) else {
            unreachable!("every dtype has its line in the table")
        };
        let device_type = match tensor.device.kind {
            DeviceKind::Cpu => OLS_DEVICE_CPU,
            DeviceKind::Cuda => OLS_DEVICE_CUDA,
        };
        let mut this = Self {
            data: tensor.data.cast(),
            device_type,
            device_id: tensor.device.id,
            dtype_code,
            dtype_bits,
            dtype_lanes: 1,
            ndim: tensor.ndim as i32,
            ..Self::ABSENT
        };
        this.shape[..tensor.ndim].copy_from_slice(tensor.sizes());
        this.strides[..tensor.ndim].copy_from_slice(&tensor.strides[..tensor.ndim]);
        this
    }

    /// The tensor as the core takes it, or the error that names `name`. Looks at the description alone, not at the memory.
    pub(super) fn to_raw(self, name: &str) -> Result<RawTensor> {
        if self.is_absent() {
            fail!(InvalidArgument, "{name} is not given: all its bytes are 0");
        }
        let (code, bits, lanes) = (self.dtype_code, self.dtype_bits, self.dtype_lanes);
        if lanes != 1 {
            fail!(InvalidDtype, "{name}.dtype_lanes = {lanes}, but it must be 1");
        }
        let Some(&(dtype, ..)) = DTYPES.iter().find(|line| (line.1, line.2) == (code, bits)) else {
            fail!(InvalidDtype, "{name}.dtype_code = {code} with dtype_bits = {bits} is not one of f32, f64, f16, bf16, i64, i32, u8");
        };
        let device = device(format_args!("{name}."), self.device_type, self.device_id)?;
        if !(0..=MAX_DIMENSIONS as i32).contains(&self.ndim) {
            fail!(InvalidShape, "{name}.ndim = {} is outside [0, {MAX_DIMENSIONS}]", self.ndim);
        }
        if self.reserved != 0 {
            fail!(InvalidArgument, "{name}.reserved = {} is not 0", self.reserved);
        }
        let ndim = self.ndim as usize;
        let (mut shape, mut strides) = ([1; MAX_DIMENSIONS], [0; MAX_DIMENSIONS]);
        shape[..ndim].copy_from_slice(&self.shape[..ndim]);
        strides[..ndim].copy_from_slice(&self.strides[..ndim]);
        Ok(RawTensor { data: self.data.cast(), device, dtype, ndim, shape, strides })
    }

    /// As [`to_raw`](Self::to_raw), where the tensor may be absent.
    pub(super) fn to_optional_raw(self, name: &str) -> Result<Option<RawTensor>> {
        if self.is_absent() { Ok(None) } else { self.to_raw(name).map(Some) }
    }
}

/// The device that DLPack's numbers name; `of` is what the message puts before the field.
pub(super) fn device(of: impl fmt::Display, device_type: i32, device_id: i32) -> Result<Device> {
    match device_type {
        OLS_DEVICE_CPU | OLS_DEVICE_CUDA_HOST => Ok(Device::CPU),
        OLS_DEVICE_CUDA => Ok(Device::cuda(device_id)),
        OLS_DEVICE_CUDA_MANAGED => fail!(InvalidDevice, "{of}device_type = {device_type}: CUDA managed memory is not supported"),
        _ => fail!(InvalidDevice, "{of}device_type = {device_type} is not one of 1 (CPU), 2 (CUDA), 3 (pinned host memory)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_survive_the_way_out_and_back() {
        for (dtype, ..) in DTYPES {
            let raw = RawTensor { data: 64 as *mut u8, device: Device::CPU, dtype, ndim: 2, shape: [2, 3, 1], strides: [5, -1, 0] };
            let back = ols_tensor_t::from_raw(&raw).to_raw("x").unwrap();
            assert_eq!((back.data, back.device, back.dtype, back.ndim), (raw.data, raw.device, raw.dtype, raw.ndim));
            assert_eq!((back.shape, back.strides), (raw.shape, raw.strides));
        }
    }

    #[test]
    fn numbers_of_dtypes_are_code_and_bits() {
        use ols_dtype_t::*;
        let numbers = [OLS_DTYPE_F32, OLS_DTYPE_F64, OLS_DTYPE_F16, OLS_DTYPE_BF16, OLS_DTYPE_I64, OLS_DTYPE_I32, OLS_DTYPE_U8];
        assert_eq!(numbers.map(|number| number as i32), DTYPES.map(|(_, code, bits)| i32::from(code) | i32::from(bits) << 8));
    }

    #[test]
    fn only_zeros_are_absent() {
        assert!(ols_tensor_t::ABSENT.is_absent());
        assert!(!ols_tensor_t { strides: [0, 0, 1], ..ols_tensor_t::ABSENT }.is_absent());
        assert!(!ols_tensor_t { reserved: 1, ..ols_tensor_t::ABSENT }.is_absent());
        assert!(ols_tensor_t::ABSENT.to_raw("x").unwrap_err().message().contains("x is not given"));
    }
}
