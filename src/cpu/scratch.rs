//! Working memory, allocated by the first call that needs it, and kept.

use super::accumulator::Locks;
use super::labels::LANES;
use super::lanes::Real;
use super::pool::Pool;
use super::sums::CHAIN;
use super::{block, columns};
use crate::error::Result;
use crate::options::scale_of_weights;
use crate::samples::{BLOCK, Samples};
use crate::state::{Matrix, try_vec};
use crate::tensor::DType;

/// The working memory of a criterion.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The sum of losses of each block of samples.
    pub(super) partials: Vec<f64>,
    /// One per thread, for as many as calls have used so far. The caller's is the first.
    pub(super) workers: Vec<Worker>,
    pub(super) locks: Option<Locks>,
    pub(super) pool: Option<Pool>,
}

/// The working memory of a thread.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(super) f32: RealScratch<f32>,
    pub(super) f64: RealScratch<f64>,
    /// Private sums and counts, where there are few classes. Rows of sums are padded with zeros to whole vectors.
    pub(super) sums: Option<(Matrix<i64>, Matrix<i64>)>,
}

/// Working memory in an arithmetic type.
#[derive(Debug, Default)]
pub(crate) struct RealScratch<R> {
    /// Two rows of exponentials; of few classes, the rows of a group. Each is padded to whole vectors.
    pub exponentials: Vec<R>,
    /// Logits, then gradients, of up to [`LANES`] samples that are not stored as kernels need them, and one vector more.
    pub copies: Vec<R>,
    pub columns: ColumnScratch<R>,
    pub class_weights: ClassWeights<R>,
}

/// The working memory of [`columns`].
#[derive(Debug, Default)]
pub(crate) struct ColumnScratch<R> {
    /// Logits, then gradients, of [`columns::TILE`] samples in the order (vector of samples, class, lane). Classes are padded with 0 to whole
    /// vectors.
    pub entries: Vec<R>,
    /// The exponentials of one vector of samples in the order (class, lane).
    pub exponentials: Vec<R>,
    /// q of one vector of samples in the order (class, lane), without the factors `1 - alpha` and [`ClassWeights::scale`].
    pub soft: Vec<R>,
    /// The losses of [`columns::TILE`] samples.
    pub losses: Vec<f64>,
}

/// Class weights in the type of a row.
#[derive(Debug, Default)]
pub(crate) struct ClassWeights<R> {
    /// The weights divided by `scale`; empty where there are none.
    pub scaled: Vec<R>,
    /// A power of two that brings all weights into the range of the type; 1 without weights.
    pub scale: f64,
}

impl Scratch {
    /// Allocates what a pass over `samples` on `threads` threads needs, so that it cannot fail; with `private_sums` sums for each thread as well.
    pub fn prepare(&mut self, samples: &Samples, class_weights: Option<&[f64]>, threads: usize, private_sums: bool) -> Result<()> {
        let blocks = samples.count.div_ceil(BLOCK);
        grow(&mut self.partials, "partial losses", blocks)?;
        if self.workers.len() < threads {
            let mut workers = try_vec("working memory of threads", threads)?;
            workers[..self.workers.len()].swap_with_slice(&mut self.workers);
            self.workers = workers;
        }
        for worker in &mut self.workers[..threads] {
            worker.prepare(samples, class_weights, private_sums)?;
        }
        if threads > 1 {
            if self.locks.is_none() {
                self.locks = Some(Locks::new()?);
            }
            if self.pool.as_ref().is_none_or(|pool| !pool.is_ours() || pool.wanted() < threads) {
                self.pool = None; // joins its threads
                self.pool = Some(Pool::new(threads));
            }
        }
        Ok(())
    }
}

impl Worker {
    fn prepare(&mut self, samples: &Samples, class_weights: Option<&[f64]>, private_sums: bool) -> Result<()> {
        let classes = samples.classes;
        match samples.logits.dtype {
            DType::F64 => self.f64.prepare(samples, class_weights)?,
            _ => self.f32.prepare(samples, class_weights)?,
        }
        if private_sums && self.sums.is_none() {
            // Rows of whole vectors: partial stores are slow, and so is reading what they wrote.
            self.sums = Some((
                Matrix::zeros("a thread's sums", classes, classes.next_multiple_of(16))?,
                Matrix::zeros("a thread's counts", 1, classes)?,
            ));
        }
        Ok(())
    }

    /// Adds the private sums and counts, which are negative where samples are taken back, to the criterion's, and clears them.
    pub(super) fn merge_sums(&mut self, sums: &mut Matrix<i64>, counts: &mut Matrix<i64>) {
        let Some((own_sums, own_counts)) = &mut self.sums else { return };
        for class in 0..own_counts.columns() {
            let count = std::mem::take(&mut own_counts.row_mut(0)[class]);
            if count == 0 {
                continue;
            }
            counts.row_mut(0)[class] += count;
            for (to, from) in sums.row_mut(class).iter_mut().zip(own_sums.row_mut(class)) {
                *to = to.wrapping_add(std::mem::take(from));
            }
        }
    }
}

impl<R: Real> RealScratch<R> {
    fn prepare(&mut self, samples: &Samples, class_weights: Option<&[f64]>) -> Result<()> {
        let (classes, width) = (samples.classes, R::LANES);
        let padded = classes.next_multiple_of(width);
        if columns::suits(samples) {
            let ColumnScratch { entries, exponentials, soft, losses } = &mut self.columns;
            grow(entries, "logits of samples that lie side by side", padded * columns::TILE)?;
            grow(exponentials, "exponentials of samples that lie side by side", padded * width)?;
            grow(soft, "soft labels of samples that lie side by side", padded * width)?;
            grow(losses, "losses of samples that lie side by side", columns::TILE)?;
        } else {
            grow(
                &mut self.exponentials,
                "rows of exponentials",
                (2 * unaliased_stride::<R>(padded)).max(LANES * padded.min(CHAIN * width)),
            )?;
            if block::copies_rows(samples) {
                grow(&mut self.copies, "copied rows", LANES * classes + width)?;
            }
        }
        self.class_weights.prepare(classes, class_weights)
    }
}

impl<R: Real> ClassWeights<R> {
    /// Computed for each pass, as loading a state may have changed the weights.
    fn prepare(&mut self, classes: usize, weights: Option<&[f64]>) -> Result<()> {
        self.scale = 1.0;
        self.scaled.clear();
        let Some(weights) = weights else { return Ok(()) };
        if self.scaled.capacity() < classes {
            self.scaled = try_vec("class weights", classes)?;
            self.scaled.clear();
        }
        self.scale = scale_of_weights(weights);
        self.scaled.extend(weights.iter().map(|&weight| R::from_f64(weight / self.scale)));
        Ok(())
    }
}

/// Replaces a vector that is shorter than `length` by zeros.
fn grow<T: Default>(vector: &mut Vec<T>, name: &str, length: usize) -> Result<()> {
    if vector.len() < length {
        *vector = try_vec(name, length)?;
    }
    Ok(())
}

/// The stride between two rows that are written and read in turn: half a page more than whole pages, since processors take a load to depend on
/// a recent store if the addresses are equal modulo the page size (4K aliasing).
fn unaliased_stride<R>(length: usize) -> usize {
    const PAGE: usize = 4096;
    let page = PAGE / size_of::<R>();
    length.next_multiple_of(page) + page / 2
}
