//! What one call works on: logits, targets, and what may come with them.

use std::marker::PhantomData;

use crate::stream::CudaStream;
use crate::tensor::{RawTensor, TensorMut, TensorRef};

/// What a forward pass in training mode does to the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Update {
    /// Adds the distributions of the samples that are classified right.
    #[default]
    Add,
    /// Leaves the statistics as they are: a second pass over a batch that was counted already.
    None,
    /// Takes a batch back that was added before, exactly; the logits must still be the same. Works in both modes.
    TakeBack,
}

/// A batch: logits of shape (N, K) or (N, K, inner), targets of shape (N) or (N, inner), and what may come with them.
///
/// `L` is [`TensorRef`], or [`TensorMut`] for a gradient that takes the place of the logits
/// ([`Criterion::forward_in_place`](crate::Criterion::forward_in_place)). Logits with the class last are given by strides:
///
/// ```
/// use ols::{Batch, TensorRef};
/// let (images, pixels, classes) = (2, 12, 5);
/// let logits = vec![0f32; images * pixels * classes]; // [image][pixel][class]
/// let view = TensorRef::with_strides(&logits, &[images, classes, pixels], 0, &[60, 1, 5])?;
/// let targets = vec![0u8; images * pixels];
/// let batch = Batch::new(view, TensorRef::new(&targets, &[images, pixels])?);
/// # Ok::<(), ols::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Batch<'a, L = TensorRef<'a>> {
    pub(crate) raw: RawBatch,
    borrows: PhantomData<(L, &'a ())>,
}

/// A batch as the core takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawBatch {
    pub logits: RawTensor,
    pub targets: RawTensor,
    pub sample_weights: Option<RawTensor>,
    pub targets2: Option<RawTensor>,
    pub lam: Option<RawTensor>,
    pub grad_loss: Option<RawTensor>,
    pub target_offset: i64,
    pub update: Update,
    pub stream: CudaStream,
}

impl<'a> Batch<'a> {
    /// A batch of logits (f32, f64, f16 or bf16) and targets (i64, i32 or u8).
    pub fn new(logits: TensorRef<'a>, targets: TensorRef<'a>) -> Self {
        Self::over(logits.raw, targets)
    }
}

impl<'a> Batch<'a, TensorMut<'a>> {
    /// A batch whose logits will be overwritten by their gradient.
    pub fn in_place(logits: TensorMut<'a>, targets: TensorRef<'a>) -> Self {
        Self::over(logits.raw, targets)
    }
}

impl<'a, L> Batch<'a, L> {
    fn over(logits: RawTensor, targets: TensorRef<'a>) -> Self {
        let raw = RawBatch {
            logits,
            targets: targets.raw,
            sample_weights: None,
            targets2: None,
            lam: None,
            grad_loss: None,
            target_offset: 0,
            update: Update::Add,
            stream: CudaStream::LEGACY,
        };
        Self { raw, borrows: PhantomData }
    }

    /// Weighs each sample: f32 or f64, the shape of the targets, finite and not negative. A sample that weighs 0 takes no part.
    pub fn sample_weights(mut self, weights: TensorRef<'a>) -> Self {
        self.raw.sample_weights = Some(weights.raw);
        self
    }

    /// Gives each sample a second target, as Mixup and CutMix do: `lam` (f32 or f64 in [0, 1], the shape of the targets or one value for all)
    /// weighs the first target and `1 - lam` the second.
    pub fn second_targets(mut self, targets: TensorRef<'a>, lam: TensorRef<'a>) -> Self {
        self.raw.targets2 = Some(targets.raw);
        self.raw.lam = Some(lam.raw);
        self
    }

    /// The gradient of the loss that comes from behind it: f32 or f64, one value, or the shape of the targets with reduction `None`. Default 1.
    pub fn grad_loss(mut self, grad_loss: TensorRef<'a>) -> Self {
        self.raw.grad_loss = Some(grad_loss.raw);
        self
    }

    /// The class is `target - offset`: 1 for labels that count from 1. The ignore index is compared before.
    pub fn target_offset(mut self, offset: i64) -> Self {
        self.raw.target_offset = offset;
        self
    }

    /// The stream that a pass is enqueued on, on a CUDA device. Default: the legacy default stream.
    pub fn stream(mut self, stream: CudaStream) -> Self {
        self.raw.stream = stream;
        self
    }

    /// What a forward pass does to the statistics. Default [`Update::Add`].
    pub fn update(mut self, update: Update) -> Self {
        self.raw.update = update;
        self
    }
}
