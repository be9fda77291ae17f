//! The end of an epoch, its report, and soft labels set by the caller.

use std::mem::offset_of;

use super::Backend;
use super::arguments::{
    Epoch, Fill, POLICY_CONSTANT, POLICY_KEEP, POLICY_MATRIX, REPORT_BAD_SOFT_LABELS, REPORT_INITIAL, REPORT_KEPT, REPORT_LENGTH,
    REPORT_ONE_HOT, REPORT_REFUSED, REPORT_UNIFORM, REPORT_ZERO, Scratch, StateArguments, number,
};
use super::driver::{self, Grid, Stream};
use super::state::MOST_BLOCKS;
use super::variants::{self, OTHER_THREADS, Other};
use crate::error::{Result, fail};
use crate::options::{EmptyClass, Initial, Options};
use crate::soft_labels;
use crate::state::{State, try_vec};
use crate::statistics::{COUNTERS, Counter, Report};
use crate::stream::CudaStream;
use crate::tensor::RawTensor;

impl Backend {
    /// Enqueues the end of an epoch; `epoch` is the number of epochs that ended before it.
    pub fn next_epoch(&self, options: &Options, state: &State, epoch: i64, stream: CudaStream) -> Result<()> {
        let current = self.enter()?;
        let (policy, initial, policy_report) = match options.empty_class {
            EmptyClass::Keep => (POLICY_KEEP, &Initial::Zero, REPORT_KEPT),
            EmptyClass::Uniform => (POLICY_CONSTANT, &Initial::Uniform, REPORT_UNIFORM),
            EmptyClass::Zero => (POLICY_CONSTANT, &Initial::Zero, REPORT_ZERO),
            EmptyClass::OneHot => (POLICY_CONSTANT, &Initial::OneHot, REPORT_ONE_HOT),
            EmptyClass::Initial => {
                let matrix = matches!(options.initial, Initial::Matrix(_));
                (if matrix { POLICY_MATRIX } else { POLICY_CONSTANT }, &options.initial, REPORT_INITIAL)
            }
        };
        let (own, other) = soft_labels::constants(initial, options.classes);
        let argument = Epoch {
            state: StateArguments::new(state),
            scratch: self.scratch,
            initial: self.initial.unwrap_or(0),
            own,
            other,
            momentum: options.momentum,
            freeze_above: options.freeze_above.unwrap_or(f64::INFINITY),
            min_count: options.min_count,
            epoch,
            classes: options.classes as i32,
            policy,
            policy_report,
            unused: 0,
        };
        let stream = Stream::new(stream);
        let blocks = options.classes.min(MOST_BLOCKS) as u32;
        // SAFETY: the state and the scratch memory live as long as the criterion, which waits for the device before
        // it frees them.
        unsafe {
            self.device.launch(variants::other(Other::EpochBegin), Grid::new(1, OTHER_THREADS), stream, &argument)?;
            self.device.launch(variants::other(Other::EpochRows), Grid::new(blocks, OTHER_THREADS), stream, &argument)?;
        }
        current.leave()
    }

    /// The reports of the last epoch that ended and of the running one. Synchronises the stream.
    ///
    /// # Errors
    /// Errors found on the device: a batch that could not be taken back, or soft labels that were refused.
    pub fn reports(&self, state: &State, epoch: i64, stream: CudaStream) -> Result<(Report, Report)> {
        let current = self.enter()?;
        let stream = Stream::new(stream);
        stream.check_not_captured()?;
        let mut numbers = [0i64; REPORT_LENGTH];
        let mut counts = try_vec::<i64>("counts", state.counts.columns())?;
        let mut counters = [0i64; COUNTERS];
        // SAFETY: the sizes match the memory on the device; the stream is synchronised below.
        let enqueued = unsafe {
            driver::download(&mut numbers, self.report_address(), stream)
                .and_then(|()| driver::download(&mut counts, state.counts.as_raw().data as u64, stream))
                .and_then(|()| driver::download(&mut counters, state.counters.as_raw().data as u64, stream))
        };
        let waited = stream.wait();
        enqueued.and(waited)?;
        if numbers[REPORT_BAD_SOFT_LABELS] != 0 {
            let at = self.report_address() + (REPORT_BAD_SOFT_LABELS * size_of::<i64>()) as u64;
            // SAFETY: clears one number of the report.
            unsafe { driver::clear(at, size_of::<i64>(), stream)? };
            fail!(InvalidArgument, "soft_labels of an earlier call have an entry that is not a finite number >= 0, and were not applied");
        }
        for (what, refused) in
            [("epoch that ended", numbers[REPORT_REFUSED]), ("running epoch", counters[Counter::TakeBacksRefused as usize])]
        {
            if refused > 0 {
                fail!(InvalidState, "take back: in the {what}, {refused} samples were not taken back, because fewer had been accumulated");
            }
        }
        current.leave()?;
        let [epoch_number, measured, kept, uniform, initial, one_hot, zero, frozen, accumulated, skipped, full, out_of_range, ..] = numbers;
        let finished = Report {
            epoch: epoch_number,
            rows_measured: measured,
            rows_kept: kept,
            rows_uniform: uniform,
            rows_initial: initial,
            rows_one_hot: one_hot,
            rows_zero: zero,
            rows_frozen: frozen,
            samples_accumulated: accumulated,
            samples_skipped: skipped,
            classes_full: full,
            targets_out_of_range: out_of_range,
        };
        Ok((finished, soft_labels::running_report(&counts, &counters, epoch)))
    }

    /// Enqueues the replacement of S by a matrix whose shape and type have been checked; its values are checked on
    /// the device.
    ///
    /// # Safety
    /// `matrix` stays readable until the work has run.
    pub unsafe fn set_soft_labels(&self, state: &State, matrix: &RawTensor, stream: CudaStream) -> Result<()> {
        let current = self.enter()?;
        self.device.check("soft_labels", matrix)?;
        let stream = Stream::new(stream);
        let to = state.soft_labels.as_raw();
        let fill = Fill {
            to: to.data as u64,
            to_stride: to.strides[0],
            from: matrix.data as u64,
            from_row: matrix.strides[0],
            from_column: matrix.strides[1],
            own: 0.0,
            other: 0.0,
            scratch: self.scratch,
            classes: state.counts.columns() as i32,
            from_dtype: number(matrix.dtype),
            checked: 1,
            unused: 0,
        };
        // SAFETY: clears one number of the scratch memory.
        unsafe { driver::clear(self.scratch + offset_of!(Scratch, bad_soft_labels) as u64, size_of::<u32>(), stream)? };
        self.launch_fill(Other::CheckSoftLabels, &fill, stream)?;
        self.launch_fill(Other::FillSoftLabels, &fill, stream)?;
        current.leave()
    }
}
