//! Passes over a batch: selects the kernels and launches them.

use super::Backend;
use super::arguments::{
    self, DIVISOR_BY_ALL_BLOCKS, DIVISOR_BY_EACH_BLOCK, DIVISOR_FROM_KERNEL, DIVISOR_IN_BLOCK, DIVISOR_ONE, Pass, PerSample, Rows,
    StateArguments, Statistics,
};
use super::driver::{Grid, Stream};
use super::variants::{self, ACCUMULATE_THREADS, Launch, Memory, OTHER_THREADS, Other};
use crate::batch::{RawBatch, Update};
use crate::error::Result;
use crate::options::{Mode, Options, Reduction};
use crate::samples::Samples;
use crate::state::State;
use crate::tensor::RawTensor;

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Forward,
    /// Only the gradient; does not change the state.
    Backward,
    /// Statistics from given probabilities.
    Accumulate,
}

/// The most blocks of the `accumulate` kernel.
const MOST_BLOCKS: usize = 4096;

impl Backend {
    /// Enqueues a pass over a batch that [`Samples::new`] has validated.
    ///
    /// # Safety
    /// The tensors stay readable, and `outputs` writable, until the work has run; nobody else writes to them, or uses
    /// `outputs`, meanwhile.
    #[expect(clippy::too_many_arguments, reason = "a criterion's own parts, borrowed one by one")]
    pub unsafe fn run(
        &self,
        options: &Options,
        state: &State,
        mode: Mode,
        samples: &Samples,
        batch: &RawBatch,
        outputs: &[(&str, Option<RawTensor>)],
        call: Call,
    ) -> Result<()> {
        let current = self.enter()?;
        let inputs = [
            ("logits", Some(batch.logits)),
            ("targets", Some(batch.targets)),
            ("targets2", batch.targets2),
            ("sample_weights", batch.sample_weights),
            ("lam", batch.lam),
            ("grad_loss", batch.grad_loss),
        ];
        for (name, tensor) in inputs.iter().chain(outputs) {
            if let Some(tensor) = tensor {
                self.device.check(name, tensor)?;
            }
        }
        let statistics = match (call, batch.update, mode) {
            (Call::Backward, ..) | (_, Update::None, _) | (_, Update::Add, Mode::Eval) => Statistics::Leave,
            (_, Update::Add, Mode::Train) => Statistics::Add,
            (_, Update::TakeBack, _) => Statistics::TakeBack,
        };
        let stream = Stream::new(batch.stream);
        let mut pass = self.arguments(options, state, samples);
        let rare = self.class_weights().is_some() || statistics == Statistics::TakeBack;
        let launch = variants::choose(samples, rare, self.device.kernels_of.copies, |kernel| self.device.room(kernel));
        if statistics == Statistics::TakeBack {
            // First count the samples of each class, so that nothing is changed if the batch cannot be taken back.
            let tally = Pass { statistics: Statistics::Tally as i32, divisor: DIVISOR_ONE, ..pass }.without_outputs();
            // SAFETY: guaranteed by the caller.
            unsafe { self.launch(launch, samples, &tally, call, stream)? };
        }
        let outputs = samples.loss.is_some() || samples.grad.is_some();
        if outputs || statistics != Statistics::Leave {
            pass.statistics = statistics as i32;
            // Count each target out of range once, not again in a second pass over the same batch.
            pass.count_targets = i32::from(call != Call::Backward && batch.update == Update::Add);
            if outputs && options.reduction == Reduction::Mean {
                pass.divisor = DIVISOR_BY_EACH_BLOCK;
                if samples.count > DIVISOR_IN_BLOCK && launch.usual {
                    pass.divisor = DIVISOR_BY_ALL_BLOCKS;
                    (pass.slice, pass.slices) = arguments::slices(samples.count);
                } else if samples.count > DIVISOR_IN_BLOCK {
                    pass.divisor = DIVISOR_FROM_KERNEL;
                    let (kernel, blocks) = (variants::other(Other::Divisor), variants::divisor_blocks(samples.count));
                    // SAFETY: guaranteed by the caller.
                    unsafe { self.device.launch(kernel, Grid::new(blocks, OTHER_THREADS), stream, &pass)? };
                }
            }
            // SAFETY: guaranteed by the caller.
            unsafe { self.launch(launch, samples, &pass, call, stream)? };
        }
        current.leave()
    }

    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn launch(&self, launch: Launch, samples: &Samples, pass: &Pass, call: Call, stream: Stream) -> Result<()> {
        if call == Call::Accumulate {
            let (kernel, blocks) = (variants::accumulate(samples.logits.dtype), samples.count.clamp(1, MOST_BLOCKS) as u32);
            // SAFETY: guaranteed by the caller.
            return unsafe { self.device.launch(kernel, Grid::new(blocks, ACCUMULATE_THREADS), stream, pass) };
        }
        let Launch { kernel, threads, .. } = launch;
        let (shared, cached) = match launch.memory {
            Memory::Row(bytes) if bytes <= self.device.room(kernel) => (bytes, 1),
            Memory::Slots(bytes, cached) => (bytes, cached),
            Memory::None | Memory::Row(_) => (0, 0),
        };
        let pass = Pass { cached, ..*pass };
        let blocks = launch.blocks(samples.count, || self.device.blocks_at_once(kernel, threads, shared))?;
        let grid = Grid { blocks, threads, shared };
        // SAFETY: guaranteed by the caller.
        unsafe { self.device.launch(kernel, grid, stream, &pass) }
    }

    fn arguments(&self, options: &Options, state: &State, samples: &Samples) -> Pass {
        let weights = self.class_weights();
        Pass {
            logits: Rows::new(Some(samples.logits)),
            grad: Rows::new(samples.grad),
            targets: PerSample::new(Some(samples.targets)),
            targets2: PerSample::new(samples.targets2),
            weights: PerSample::new(samples.weights),
            lam: PerSample::new(samples.lam),
            grad_loss: PerSample::new(samples.grad_loss),
            loss: PerSample::new(samples.loss),
            count: samples.count as i64,
            inner: samples.inner as i64,
            target_offset: samples.target_offset,
            ignore_index: samples.ignore_index,
            state: StateArguments::new(state),
            class_weights: weights.map_or(0, |weights| weights.plain),
            scaled_weights: weights.map_or(0, |weights| weights.scaled),
            scaled_weights32: weights.map_or(0, |weights| weights.scaled32),
            weight_scale: weights.and_then(|weights| weights.scale).unwrap_or(1.0),
            alpha: options.alpha,
            near_loss: arguments::near_loss(samples.count),
            scratch: self.scratch,
            tally: self.tally,
            classes: samples.classes as i32,
            reduction: arguments::reduction(options.reduction),
            statistics: Statistics::Leave as i32,
            divisor: DIVISOR_ONE,
            count_targets: 0,
            cached: 0,
            slice: 0,
            slices: 0,
        }
    }
}

impl Pass {
    /// The same pass without loss and gradient.
    fn without_outputs(self) -> Self {
        Self { loss: PerSample::default(), grad: Rows::default(), ..self }
    }
}
