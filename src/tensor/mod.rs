//! Views of the caller's tensors: an element type, a device, up to three dimensions with strides in elements.
//!
//! [`TensorRef`] and [`TensorMut`] are what the Rust API takes. Inside, both become a [`RawTensor`], which is also what the C ABI hands over: an
//! address with a description, checked once by [`RawTensor::check`], before anything is read.

mod dtype;
mod raw;
mod view;

pub use dtype::{DType, Device, DeviceKind, Element, Logit, Target};
pub(crate) use raw::{Bytes, RawTensor, Sizes};
pub use view::{TensorMut, TensorRef};

/// The most dimensions that a view can have.
pub const MAX_DIMENSIONS: usize = 3;
