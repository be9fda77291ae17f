//! The state on the device: initialisation, and transfers to and from the host.

use super::arguments::{Fill, number};
use super::driver::{self, Grid, RelaxedCapture, Stream};
use super::variants::{self, OTHER_THREADS, Other};
use super::{Backend, Uploads};
use crate::error::Result;
use crate::options::{Initial, Options};
use crate::soft_labels;
use crate::state::{Matrix, State, StateMemory};
use crate::stream::CudaStream;
use crate::tensor::{Element, RawTensor};

/// The most blocks of a kernel with one block per class; it loops over the remaining classes.
pub(super) const MOST_BLOCKS: usize = 65_535;

impl Backend {
    /// Initialises the state of a new criterion, except for memory of the caller's that is to be adopted.
    pub(super) fn initialise_state(&self, options: &Options, state: &State, memory: &StateMemory, stream: Stream) -> Result<()> {
        let adopted = |given: &Option<RawTensor>| given.is_some() && memory.adopt;
        if !adopted(&memory.soft_labels) {
            let soft_labels = state.soft_labels.as_raw();
            let matrix = if matches!(options.initial, Initial::Matrix(_)) { self.initial } else { None };
            let (own, other) = soft_labels::constants(&options.initial, options.classes);
            let fill = Fill {
                to: soft_labels.data as u64,
                to_stride: soft_labels.strides[0],
                from: matrix.unwrap_or(0),
                from_row: options.classes as i64,
                from_column: 1,
                own,
                other,
                scratch: self.scratch,
                classes: options.classes as i32,
                from_dtype: number(crate::tensor::DType::F32),
                checked: 0,
                unused: 0,
            };
            self.launch_fill(Other::FillSoftLabels, &fill, stream)?;
        }
        clear(&state.sums, adopted(&memory.sums), stream)?;
        clear(&state.counts, adopted(&memory.counts), stream)?;
        clear(&state.counters, adopted(&memory.counters), stream)
    }

    pub(super) fn launch_fill(&self, kernel: Other, fill: &Fill, stream: Stream) -> Result<()> {
        let blocks = (fill.classes as usize).min(MOST_BLOCKS) as u32;
        // SAFETY: `fill` refers to S, to the scratch memory, and to a matrix that the caller vouches for.
        unsafe { self.device.launch(variants::other(kernel), Grid::new(blocks, OTHER_THREADS), stream, fill) }
    }

    /// A copy of the state in host memory. Synchronises the stream.
    pub fn download(&self, state: &State, stream: CudaStream) -> Result<State> {
        let current = self.enter()?;
        // SAFETY: none of it is memory of the caller's.
        let mut copy = unsafe { State::new(state.counts.columns(), &StateMemory::default())? };
        let stream = Stream::new(stream);
        stream.check_not_captured()?;
        let enqueued = download(&state.soft_labels, &mut copy.soft_labels, stream)
            .and_then(|()| download(&state.sums, &mut copy.sums, stream))
            .and_then(|()| download(&state.counts, &mut copy.counts, stream))
            .and_then(|()| download(&state.counters, &mut copy.counters, stream));
        // Even after a failure: a copy may be in flight to memory that is about to be freed.
        let waited = stream.wait();
        enqueued.and(waited)?;
        current.leave()?;
        Ok(copy)
    }

    /// Replaces options and state by those of a file. Synchronises the stream.
    pub fn load(&mut self, options: &Options, from: &State, state: &State, stream: CudaStream) -> Result<()> {
        let current = self.enter()?;
        let stream = Stream::new(stream);
        // Before anything is changed.
        stream.check_not_captured()?;
        let relaxed = RelaxedCapture::enter()?;
        let mut uploads = Uploads::default();
        let enqueued = self.upload_options(options, &mut uploads, stream);
        drop(relaxed);
        let enqueued = enqueued.and_then(|()| self.upload_state(from, state, stream));
        // Even after a failure: a copy may be in flight from memory that is about to be freed.
        let waited = stream.wait();
        enqueued.and(waited)?;
        self.take(&uploads);
        current.leave()
    }

    /// Enqueues copies of a state to the device, and clears the last epoch's report.
    fn upload_state(&self, from: &State, state: &State, stream: Stream) -> Result<()> {
        upload(&from.soft_labels, &state.soft_labels, stream)
            .and_then(|()| upload(&from.sums, &state.sums, stream))
            .and_then(|()| upload(&from.counts, &state.counts, stream))
            .and_then(|()| upload(&from.counters, &state.counters, stream))
            .and_then(|()| self.clear_report(stream))
    }
}

/// The contiguous pieces of a matrix: all of it, or its rows.
fn pieces<T: Element + bytemuck::Zeroable>(matrix: &Matrix<T>) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let raw = matrix.as_raw();
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let stride = if rows == 1 { columns } else { raw.strides[0] as usize };
    let together = if stride == columns { rows } else { 1 };
    (0..rows / together).map(move |piece| {
        let address = raw.data as u64 + (piece * stride * size_of::<T>()) as u64;
        (address, piece * together..(piece + 1) * together)
    })
}

fn clear<T: Element + bytemuck::Zeroable>(matrix: &Matrix<T>, adopted: bool, stream: Stream) -> Result<()> {
    if adopted {
        return Ok(());
    }
    for (address, rows) in pieces(matrix) {
        // SAFETY: these rows belong to the matrix.
        unsafe { driver::clear(address, rows.len() * matrix.columns() * size_of::<T>(), stream)? };
    }
    Ok(())
}

fn download<T: Element + bytemuck::Zeroable>(from: &Matrix<T>, to: &mut Matrix<T>, stream: Stream) -> Result<()> {
    for (address, rows) in pieces(from) {
        // SAFETY: both sides have the same number of elements; the caller synchronises the stream.
        unsafe { driver::download(to.rows_mut(rows), address, stream)? };
    }
    Ok(())
}

fn upload<T: Element + bytemuck::Zeroable>(from: &Matrix<T>, to: &Matrix<T>, stream: Stream) -> Result<()> {
    for (address, rows) in pieces(to) {
        for row in rows.clone() {
            let at = address + ((row - rows.start) * to.columns() * size_of::<T>()) as u64;
            // SAFETY: both sides have the same number of elements.
            unsafe { driver::upload(at, from.row(row), stream)? };
        }
    }
    Ok(())
}
