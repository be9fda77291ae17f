//! Online Label Smoothing: a classification loss that learns its own soft labels from the model's correct predictions.
#![deny(missing_docs, unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

mod batch;
pub mod capi;
mod checkpoint;
mod cpu;
mod criterion;
mod error;
mod options;
pub mod reference;
mod samples;
mod soft_labels;
mod state;
mod statistics;
mod tensor;

pub use batch::{Batch, Update};
pub use criterion::Criterion;
pub use error::{Error, ErrorKind, Result};
pub use half::{bf16, f16};
pub use options::{EmptyClass, Initial, Mode, Options, Preset, Reduction};
pub use statistics::{COUNTERS, Counter, FRACTION_BITS, FULL_CLASS, Report};
pub use tensor::{DType, Device, DeviceKind, Element, Logit, MAX_DIMENSIONS, Target, TensorMut, TensorRef};

#[cfg(target_endian = "big")]
compile_error!("libols reads and writes its state in little-endian order; big-endian targets are not supported yet");
