//! Online Label Smoothing: a classification loss that learns its own soft labels from the model's correct predictions.
//!
//! C. Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing 30, 2021. In each epoch the predicted distributions of
//! the correctly classified samples are averaged per class; that average is the class's soft label in the next epoch, and the loss combines
//! it with the hard label: `q = alpha * onehot(y) + (1 - alpha) * S[y]`, `loss = -sum q log p`.
//!
//! The crate has two interfaces. The safe Rust interface is a [`Criterion`], created from [`Options`] and called with a [`Batch`] of [`TensorRef`]s.
//! The C ABI in [`capi`] is a thin layer over it and is documented in `include/ols.h`. [`mod@reference`] is the executable specification of both.
//!
//! ```
//! use ols::{Batch, Criterion, Mode, Options, Reduction, TensorMut, TensorRef};
//!
//! # fn main() -> ols::Result<()> {
//! // Segmentation: 2 images of 3x4 pixels, 5 classes; a loss per pixel; the gradient in place of the logits.
//! let options = Options::new(5).alpha(0.5).ignore_index(255).reduction(Reduction::None);
//! let mut criterion = Criterion::new(&options)?;
//! let mut logits = vec![0.25f32; 2 * 5 * 12];
//! let targets = vec![1u8; 2 * 12];
//! let mut losses = vec![0f32; 2 * 12];
//! for epoch in 0..3 {
//!     let batch = Batch::in_place(TensorMut::new(&mut logits, &[2, 5, 12])?, TensorRef::new(&targets, &[2, 12])?);
//!     criterion.forward_in_place(batch, Some(TensorMut::new(&mut losses, &[2, 12])?))?;
//!     criterion.next_epoch()?;
//! }
//! criterion.set_mode(Mode::Eval); // validation adds nothing
//! # Ok(())
//! # }
//! ```
//!
//! On a CUDA device the views are of device memory, such as cudarc's, and a pass is enqueued on a stream of the caller's:
//!
//! ```no_run
//! use ols::{Batch, Criterion, CudaStream, DType, Device, Options, TensorMut, TensorRef};
//! use std::ffi::c_void;
//!
//! # fn train(logits: u64, targets: u64, gradient: u64, loss: u64, stream: *mut c_void) -> ols::Result<()> {
//! let device = Device::cuda(0);
//! let mut criterion = Criterion::new(&Options::new(1000).device(device))?;
//! // SAFETY: memory of the device of these sizes, and a stream; both stay until the work on the stream has run.
//! let (logits, targets, loss, gradient, stream) = unsafe {
//!     (
//!         TensorRef::from_raw(logits as *const c_void, DType::F32, device, &[256, 1000], None)?,
//!         TensorRef::from_raw(targets as *const c_void, DType::I64, device, &[256], None)?,
//!         TensorMut::from_raw(loss as *mut c_void, DType::F32, device, &[], None)?,
//!         TensorMut::from_raw(gradient as *mut c_void, DType::F32, device, &[256, 1000], None)?,
//!         CudaStream::from_raw(stream),
//!     )
//! };
//! criterion.forward(&Batch::new(logits, targets).stream(stream), Some(loss), Some(gradient))?;
//! criterion.next_epoch_on(stream)?; // waits for nothing
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs, unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc, clippy::missing_errors_doc)]

mod batch;
pub mod capi;
mod checkpoint;
mod cpu;
mod criterion;
#[doc(hidden)]
pub mod cuda;
mod error;
mod options;
pub mod reference;
mod samples;
mod soft_labels;
mod state;
mod statistics;
mod stream;
mod tensor;

pub use batch::{Batch, Update};
pub use criterion::{Criterion, StatisticsMut};
pub use error::{Error, ErrorKind, Result};
pub use half::{bf16, f16};
pub use options::{EmptyClass, Initial, Mode, Options, Preset, Reduction};
pub use statistics::{COUNTERS, Counter, FRACTION_BITS, FULL_CLASS, Report};
pub use stream::CudaStream;
pub use tensor::{DType, Device, DeviceKind, Element, Logit, MAX_DIMENSIONS, Target, TensorMut, TensorRef};

#[cfg(target_endian = "big")]
compile_error!("libols reads and writes its state in little-endian order; big-endian targets are not supported yet");

/// The README's examples run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
