//! Element types, devices, and the Rust types that stand for the former.

use std::fmt;

use half::{bf16, f16};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
#[non_exhaustive]
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
