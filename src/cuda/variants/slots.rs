//! The dynamic shared memory of kernels whose rows are brought there by the copy engine: `RowInShared` and `RowStream` in
//! `cuda/kernels`.

use crate::tensor::DType;

/// Classes per slot of a stream; `OLS_STREAM_CHUNK`.
pub(in crate::cuda) const STREAM_CHUNK: usize = 4096;
/// The most slots of a stream for logits; `OLS_STREAM_SLOTS`.
pub(in crate::cuda) const STREAM_SLOTS: usize = 16;
/// The most slots of a stream for soft labels; `OLS_STREAM_LABEL_SLOTS`. More made no row faster.
pub(in crate::cuda) const STREAM_LABEL_SLOTS: usize = 4;
/// With fewer slots for soft labels, loads and computation would take turns.
const LEAST_LABEL_SLOTS: usize = 2;
/// Bytes that the copy engine copies at once; `COPY_UNIT`.
const COPY_UNIT: usize = 16;
/// Bytes of a barrier in shared memory.
const BARRIER: usize = 8;
/// The most classes of shared32.
const MOST_CLASSES: usize = 1024;
const FLOAT: usize = size_of::<f32>();

/// Bytes of a slot for `most` values: they may begin and end inside a unit.
const fn slot(most: usize, value: usize) -> usize {
    most * value + COPY_UNIT
}

/// Bytes for the row of a warp; `RowInShared::Memory`.
pub(in crate::cuda) const fn row_in_shared(dtype: DType) -> usize {
    let exponentials = if dtype.size() == FLOAT { COPY_UNIT } else { MOST_CLASSES * FLOAT };
    2 * BARRIER + slot(MOST_CLASSES, dtype.size()) + exponentials
}

/// Bytes of the barriers of a stream; `RowStream::Barriers`.
pub(in crate::cuda) const STREAM_BARRIERS: usize = 2 * BARRIER * (STREAM_SLOTS + STREAM_LABEL_SLOTS);

/// Bytes for a stream of rows, and `Pass.cached` for them; `None` if a block that can have `room` bytes has no room for
/// a whole row.
pub(super) fn stream(classes: usize, dtype: DType, room: usize) -> Option<(usize, i32)> {
    let (of_labels, of_logits) = (slot(STREAM_CHUNK, FLOAT), slot(STREAM_CHUNK, dtype.size()));
    let exponentials = if dtype.size() == FLOAT { 0 } else { classes * FLOAT };
    let fixed = STREAM_BARRIERS + exponentials;
    let chunks = classes.div_ceil(STREAM_CHUNK);
    let free = room.checked_sub(fixed + chunks * of_logits)?;
    let labels = (free / of_labels).min(STREAM_LABEL_SLOTS);
    // What is left takes chunks of the rows that follow.
    let logits = (chunks + (free - labels * of_labels) / of_logits).min(STREAM_SLOTS);
    let fits = labels >= LEAST_LABEL_SLOTS && chunks <= logits;
    fits.then(|| (fixed + labels * of_labels + logits * of_logits, (logits + 256 * labels) as i32))
}
