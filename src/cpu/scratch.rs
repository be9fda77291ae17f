//! Working memory: made by the calls that need it first, and kept.

use super::adder::Locks;
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
    /// A partial loss per block of samples.
    pub(super) partials: Vec<f64>,
    /// One for each thread that calls have had so far, the caller's first.
    pub(super) workers: Vec<Worker>,
    pub(super) locks: Option<Locks>,
    pub(super) pool: Option<Pool>,
}

/// The working memory of a thread.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(super) f32: RealScratch<f32>,
    pub(super) f64: RealScratch<f64>,
    /// Sums and counts of the thread's own, where classes are few; rows are longer than there are classes, by zeros.
    pub(super) sums: Option<(Matrix<i64>, Matrix<i64>)>,
}

#[derive(Debug, Default)]
pub(crate) struct RealScratch<R> {
    /// Two rows of exponentials, or those of a group of few classes; each a whole number of vectors.
    pub exponentials: Vec<R>,
    /// Logits, then gradients, of up to [`LANES`] samples that are not stored as kernels need them; a vector more.
    pub copies: Vec<R>,
    pub columns: ColumnScratch<R>,
    pub class_weights: ClassWeights<R>,
}

#[derive(Debug, Default)]
pub(crate) struct ColumnScratch<R> {
    /// Logits, then gradients, in the order (vector of samples, class, lane), of [`columns::STRETCH`] samples; 0 in classes behind
    /// the last up to a whole number of vectors.
    pub entries: Vec<R>,
    /// Exponentials of one vector in the same order.
    pub exponentials: Vec<R>,
    /// q of one vector in the same order, but for the factors `1 - alpha` and [`ClassWeights::scale`].
    pub soft: Vec<R>,
    /// Of [`columns::STRETCH`] samples.
    pub losses: Vec<f64>,
}

/// Class weights in the type of a row.
#[derive(Debug, Default)]
pub(crate) struct ClassWeights<R> {
    /// Divided by `scale`; empty where there are none.
    pub scaled: Vec<R>,
    /// A power of two, so that no weight is too small or too large for the type; 1 without weights.
    pub scale: f64,
}

impl Scratch {
    /// Makes the next pass over `samples` on `threads` threads unable to fail. `private`: threads add to sums of
    /// their own.
    pub fn prepare(&mut self, samples: &Samples, class_weights: Option<&[f64]>, threads: usize, private: bool) -> Result<()> {
        let blocks = samples.count.div_ceil(BLOCK);
        grow(&mut self.partials, "partial losses", blocks)?;
        if self.workers.len() < threads {
            let mut workers = try_vec("working memory of threads", threads)?;
            workers[..self.workers.len()].swap_with_slice(&mut self.workers);
            self.workers = workers;
        }
        for worker in &mut self.workers[..threads] {
            worker.prepare(samples, class_weights, private)?;
        }
        if threads > 1 {
            if self.locks.is_none() {
                self.locks = Some(Locks::new()?);
            }
            if self.pool.as_ref().is_none_or(|pool| !pool.is_ours() || pool.wanted() < threads) {
                self.pool = None; // ends its threads
                self.pool = Some(Pool::new(threads));
            }
        }
        Ok(())
    }
}

impl Worker {
    fn prepare(&mut self, samples: &Samples, class_weights: Option<&[f64]>, private: bool) -> Result<()> {
        let classes = samples.classes;
        match samples.logits.dtype {
            DType::F64 => self.f64.prepare(samples, class_weights)?,
            _ => self.f32.prepare(samples, class_weights)?,
        }
        if private && self.sums.is_none() {
            // Whole vectors to a row: parts of vectors are slow to write and to read again.
            self.sums = Some((
                Matrix::zeros("a thread's sums", classes, classes.next_multiple_of(16))?,
                Matrix::zeros("a thread's counts", 1, classes)?,
            ));
        }
        Ok(())
    }

    /// Adds a thread's own sums and counts to the criterion's (or subtracts them, where they are so), and clears them.
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
            grow(entries, "logits of samples that lie side by side", padded * columns::STRETCH)?;
            grow(exponentials, "exponentials of samples that lie side by side", padded * width)?;
            grow(soft, "soft labels of samples that lie side by side", padded * width)?;
            grow(losses, "losses of samples that lie side by side", columns::STRETCH)?;
        } else {
            grow(&mut self.exponentials, "rows of exponentials", (2 * apart::<R>(padded)).max(LANES * padded.min(CHAIN * width)))?;
            if block::copies_rows(samples) {
                grow(&mut self.copies, "copied rows", LANES * classes + width)?;
            }
        }
        self.class_weights.prepare(classes, class_weights)
    }
}

impl<R: Real> ClassWeights<R> {
    /// Anew for each pass: weights may have been loaded.
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

/// Makes a vector at least so long, of zeros.
fn grow<T: Default>(vector: &mut Vec<T>, name: &str, length: usize) -> Result<()> {
    if vector.len() < length {
        *vector = try_vec(name, length)?;
    }
    Ok(())
}

/// How far from each other to put rows that are written and read in turns: half a page more than pages, because processors take a load for one
/// of what was just stored if the addresses differ by pages alone.
fn apart<R>(length: usize) -> usize {
    const PAGE: usize = 4096;
    let page = PAGE / size_of::<R>();
    length.next_multiple_of(page) + page / 2
}
