//! One pass over the samples of a batch: rows in, loss and gradient out, statistics added; on one thread or several.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses, after all checks")]

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::adder::{Adder, Locks, Table};
use super::block::Blocks;
use super::columns;
use super::float_environment::DefaultFloatEnvironment;
use super::lanes::Real;
use super::level::Level;
use super::pool::Pool;
use super::scratch::{Scratch, Worker};
use super::sums::CHAIN;
use crate::error::Result;
use crate::samples::{BLOCK, Place, Samples};
use crate::state::{Matrix, View};
use crate::statistics::{Counter, FULL_CLASS};

/// What a pass works on, and how.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub samples: &'a Samples,
    /// S.
    pub soft_labels: View<'a, f32>,
    /// Weight of the hard label.
    pub alpha: f64,
    pub class_weights: Option<&'a [f64]>,
    /// The reduction's divisor; 1 but for the mean. Where it is 0, loss and gradient are 0.
    pub divisor: f64,
    /// Whether each sample's loss is written, rather than their sum.
    pub each: bool,
    pub level: Level,
    /// The most threads.
    pub threads: usize,
}

// SAFETY: the addresses in `samples` are used as `run`'s caller promised: inputs are only read, and each sample's outputs are written by the
// one thread that has it.
unsafe impl Sync for Pass<'_> {}

/// What a pass does to the statistics.
pub(crate) enum Statistics<'a> {
    /// Nothing.
    Leave,
    /// Adds to (or subtracts from) A, c and the counters.
    Apply { sums: &'a mut Matrix<i64>, counts: &'a mut Matrix<i64>, counters: &'a mut Matrix<i64>, negate: bool },
    /// Counts, per class, the samples that `Apply` would add.
    Tally(&'a mut [i64]),
}

/// For no more classes than this threads add to sums of their own, which stay in their first caches.
const FEW_CLASSES: usize = 128;

// `columns` adds to the statistics without locks: where threads share them, it must have sums of its own.
const _: () = assert!(FEW_CLASSES >= CHAIN * <f32 as Real>::LANES);

/// Nanoseconds of work that are worth a further thread: it takes some ten thousand until it is awake.
const WORTH_A_THREAD: usize = 60_000;

impl Pass<'_> {
    /// How many threads this pass is worth, and whether they add to sums of their own first. Depends on nothing that changes a bit.
    fn plan(&self, statistics: &Statistics<'_>) -> (usize, bool) {
        let Samples { count, classes, .. } = *self.samples;
        // Half a nanosecond for an entry, by measurement.
        let work = count.saturating_mul(classes) / 2;
        let threads = self.threads.min(1 + work / WORTH_A_THREAD).min(count.div_ceil(BLOCK)).max(1);
        // Rows of their own have whole vectors, which is worth it alone where those would have to be turned around first.
        let private = if threads == 1 { count >= 4 * classes && columns::suits(self.samples) } else { classes <= FEW_CLASSES };
        match statistics {
            _ if threads == 1 && !private => (1, false),
            Statistics::Leave => (threads, false),
            Statistics::Tally(_) => (1, false),
            Statistics::Apply { counts, negate, .. } => {
                // Threads count for themselves, so a class that may become full is left to one.
                let limit = FULL_CLASS - (count as i64).min(FULL_CLASS);
                if !*negate && counts.row(0).iter().any(|&count| count > limit) {
                    return (1, false);
                }
                (threads, private)
            }
        }
    }
}

/// Runs a pass. Fails, before anything is written, where working memory or threads cannot be had.
///
/// # Safety
/// The tensors behind `pass.samples` were checked and validated and can be read; loss and gradient can be written and are used by nobody else.
pub(crate) unsafe fn run(pass: &Pass<'_>, scratch: &mut Scratch, statistics: &mut Statistics<'_>) -> Result<()> {
    let (threads, private) = pass.plan(statistics);
    scratch.prepare(pass.samples, pass.class_weights, threads, private)?;
    let Scratch { partials, workers, locks, pool } = scratch;
    let workers = &mut workers[..threads];
    let partials = &mut partials[..pass.samples.count.div_ceil(BLOCK)];
    let skipped = match (threads, pool) {
        (2.., Some(pool)) => {
            let crew =
                Crew { pass, partials: Shares(partials.as_mut_ptr()), blocks: partials.len(), workers: Shares(workers.as_mut_ptr()) };
            // SAFETY: the caller's promise; there are as many workers as threads.
            unsafe { crew.run(threads, pool, private, locks.as_ref(), statistics) }
        }
        _ => {
            let mut own = if private { workers[0].sums.take() } else { None };
            let mut adder = match (&mut own, &*statistics) {
                (Some(own), Statistics::Apply { negate, .. }) => Adder::own(own, *negate),
                _ => Adder::of(statistics),
            };
            // SAFETY: the caller's promise.
            unsafe { Blocks::new(pass, 0, partials, &mut workers[0], &mut adder) }.run();
            let skipped = adder.skipped;
            if private {
                workers[0].sums = own;
            }
            skipped
        }
    };
    if let Statistics::Apply { sums, counts, .. } = statistics {
        for worker in workers.iter_mut().filter(|_| private) {
            worker.merge_sums(sums, counts);
        }
    }
    note_skipped(statistics, skipped);
    if let Some(loss) = pass.samples.loss
        && !pass.each
    {
        let sum = partials.iter().fold(0.0, |sum, partial| sum + partial);
        let value = if pass.divisor == 0.0 { 0.0 } else { sum / pass.divisor };
        // SAFETY: the caller's promise; a reduced loss has one element.
        unsafe { loss.write(Place { outer: 0, inner: 0 }, value) };
    }
    Ok(())
}

/// Counts rows that were kept out because they are not finite.
pub(super) fn note_skipped(statistics: &mut Statistics<'_>, skipped: i64) {
    if let Statistics::Apply { counters, negate, .. } = statistics {
        let counter = &mut counters.row_mut(0)[Counter::SkippedNonFinite as usize];
        *counter = if *negate { counter.saturating_sub(skipped).max(0) } else { counter.saturating_add(skipped) };
    }
}

/// An array of which each thread uses elements of its own.
struct Shares<T>(*mut T);

// SAFETY: `Crew` says which elements are whose.
unsafe impl<T: Send> Sync for Shares<T> {}

/// A pass on several threads.
struct Crew<'a> {
    pass: &'a Pass<'a>,
    /// One for each of `blocks`; a block is some thread's alone.
    partials: Shares<f64>,
    blocks: usize,
    /// One for each thread.
    workers: Shares<Worker>,
}

impl Crew<'_> {
    /// Gives the number of rows that were not finite.
    ///
    /// # Safety
    /// As [`run`]; there are `threads` workers.
    unsafe fn run(&self, threads: usize, pool: &mut Pool, private: bool, locks: Option<&Locks>, statistics: &mut Statistics<'_>) -> i64 {
        let tables = match statistics {
            Statistics::Apply { sums, counts, negate, .. } => Some((Table::new(sums), Table::new(counts), *negate)),
            Statistics::Leave | Statistics::Tally(_) => None,
        };
        // Enough pieces for every thread to end at the same time, few enough to cost nothing.
        let step = (self.blocks / (threads * 8)).max(1);
        let (next, skipped) = (AtomicUsize::new(0), AtomicI64::new(0));
        pool.run(threads, &|number| {
            let _environment = DefaultFloatEnvironment::enter();
            // SAFETY: the pool gives each thread a number of its own, below `threads`.
            let worker = unsafe { &mut *self.workers.0.add(number) };
            let mut own = if private { worker.sums.take() } else { None };
            let mut adder = match (&tables, &mut own) {
                (None, _) => Adder::leave(),
                (Some((_, _, negate)), Some(own)) => Adder::own(own, *negate),
                // SAFETY: all threads use them under the locks.
                (Some((sums, counts, negate)), None) => unsafe { Adder::apply(*sums, *counts, locks, *negate) },
            };
            loop {
                let first = next.fetch_add(step, Ordering::Relaxed);
                if first >= self.blocks {
                    break;
                }
                // SAFETY: the blocks from `first` on are this thread's, since `next` gives each number once.
                let partials = unsafe { std::slice::from_raw_parts_mut(self.partials.0.add(first), step.min(self.blocks - first)) };
                // SAFETY: the caller's promise.
                unsafe { Blocks::new(self.pass, first, partials, worker, &mut adder) }.run();
            }
            skipped.fetch_add(adder.skipped, Ordering::Relaxed);
            if private {
                worker.sums = own;
            }
        });
        skipped.into_inner()
    }
}
