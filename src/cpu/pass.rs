//! A pass over the samples of a batch, on one thread or several: computes loss and gradient, and adds to the statistics.
#![allow(unsafe_code, reason = "the caller's memory is shared out to threads, after all checks")]

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::accumulator::{Accumulator, Locks, Table};
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

/// The input and the settings of a pass.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub samples: &'a Samples,
    /// S, the soft labels.
    pub soft_labels: View<'a, f32>,
    /// The weight of the hard label.
    pub alpha: f64,
    pub class_weights: Option<&'a [f64]>,
    /// The divisor of the reduction: that of the mean, or 1. Where it is 0, loss and gradient are 0.
    pub divisor: f64,
    /// Whether each sample's loss is written, rather than their sum.
    pub each: bool,
    pub level: Level,
    /// The most threads.
    pub threads: usize,
}

// SAFETY: only unsafe functions follow the addresses in `samples`, and `run` has them read inputs, and write the outputs of a sample on the one
// thread that has the sample's block.
unsafe impl Sync for Pass<'_> {}

/// What a pass does to the statistics.
pub(crate) enum Statistics<'a> {
    /// Nothing: they stay as they are.
    Leave,
    /// Samples are added to (or taken back from) A, c and the counters.
    Apply { sums: &'a mut Matrix<i64>, counts: &'a mut Matrix<i64>, counters: &'a mut Matrix<i64>, negate: bool },
    /// The samples of each class that `Apply` would add are counted.
    Tally(&'a mut [i64]),
}

/// Up to this many classes, threads add to private sums, which stay in their first-level caches.
const MAX_CLASSES_FOR_PRIVATE_SUMS: usize = 128;

// `columns` adds to the statistics without locks, so on several threads it must have private sums.
const _: () = assert!(MAX_CLASSES_FOR_PRIVATE_SUMS >= CHAIN * <f32 as Real>::LANES);

/// The least work, in nanoseconds, that is worth another thread: waking one takes some ten thousand.
const MIN_NANOSECONDS_PER_THREAD: usize = 60_000;

impl Pass<'_> {
    /// The number of threads to use, and whether they add to private sums first. Neither changes a bit of the result.
    fn plan(&self, statistics: &Statistics<'_>) -> (usize, bool) {
        let Samples { count, classes, .. } = *self.samples;
        // Half a nanosecond per entry, measured.
        let work = count.saturating_mul(classes) / 2;
        let threads = self.threads.min(1 + work / MIN_NANOSECONDS_PER_THREAD).min(count.div_ceil(BLOCK)).max(1);
        // The rows of private sums are whole vectors. On one thread, merging them costs less than that saves only for `columns`, which
        // transposes what it adds.
        let private_sums =
            if threads == 1 { count >= 4 * classes && columns::suits(self.samples) } else { classes <= MAX_CLASSES_FOR_PRIVATE_SUMS };
        match statistics {
            _ if threads == 1 && !private_sums => (1, false),
            Statistics::Leave => (threads, false),
            Statistics::Tally(_) => (1, false),
            Statistics::Apply { counts, negate, .. } => {
                // Private counts cannot tell when a class becomes full, so a pass in which one may is left to one thread.
                let limit = FULL_CLASS - (count as i64).min(FULL_CLASS);
                if !*negate && counts.row(0).iter().any(|&count| count > limit) {
                    return (1, false);
                }
                (threads, private_sums)
            }
        }
    }
}

/// Runs a pass. Fails, before anything is written, where working memory cannot be had.
///
/// # Safety
/// The tensors behind `pass.samples` were checked, validated, and can be read. Loss and gradient can be written, and nothing else accesses them.
pub(crate) unsafe fn run(pass: &Pass<'_>, scratch: &mut Scratch, statistics: &mut Statistics<'_>) -> Result<()> {
    let (threads, private_sums) = pass.plan(statistics);
    scratch.prepare(pass.samples, pass.class_weights, threads, private_sums)?;
    let Scratch { partials, workers, locks, pool } = scratch;
    let workers = &mut workers[..threads];
    let partials = &mut partials[..pass.samples.count.div_ceil(BLOCK)];
    let skipped = match (threads, pool, locks) {
        (2.., Some(pool), Some(locks)) => {
            let parallel = ParallelPass {
                pass,
                partials: SharedArray(partials.as_mut_ptr()),
                blocks: partials.len(),
                workers: SharedArray(workers.as_mut_ptr()),
            };
            // SAFETY: the caller promises a validated batch and exclusive access to its outputs; `partials` and `workers` are borrowed exclusively.
            unsafe { parallel.run(threads, pool, private_sums, locks, statistics) }
        }
        _ => {
            let mut private = if private_sums { workers[0].sums.take() } else { None };
            let mut accumulator = match (&mut private, &*statistics) {
                (Some(private), Statistics::Apply { negate, .. }) => Accumulator::private(private, *negate),
                _ => Accumulator::new(statistics),
            };
            // SAFETY: the caller promises a validated batch and exclusive access to its outputs; there is no other thread.
            unsafe { Blocks::new(pass, 0, partials, &mut workers[0], &mut accumulator) }.run();
            let skipped = accumulator.skipped;
            if private_sums {
                workers[0].sums = private;
            }
            skipped
        }
    };
    if let Statistics::Apply { sums, counts, .. } = statistics {
        for worker in workers.iter_mut().filter(|_| private_sums) {
            worker.merge_sums(sums, counts);
        }
    }
    note_skipped(statistics, skipped);
    if let Some(loss) = pass.samples.loss
        && !pass.each
    {
        let sum = partials.iter().fold(0.0, |sum, partial| sum + partial);
        let value = if pass.divisor == 0.0 { 0.0 } else { sum / pass.divisor };
        // SAFETY: the caller promises exclusive access to the loss, which has one element where it is reduced.
        unsafe { loss.write(Place { outer: 0, inner: 0 }, value) };
    }
    Ok(())
}

/// Counts rows that were left out because they are not finite.
pub(super) fn note_skipped(statistics: &mut Statistics<'_>, skipped: i64) {
    if let Statistics::Apply { counters, negate, .. } = statistics {
        let counter = &mut counters.row_mut(0)[Counter::SkippedNonFinite as usize];
        *counter = if *negate { counter.saturating_sub(skipped).max(0) } else { counter.saturating_add(skipped) };
    }
}

/// An array of which each thread accesses elements of its own.
struct SharedArray<T>(*mut T);

// SAFETY: only unsafe code follows the address, and `ParallelPass` gives each element to one thread.
unsafe impl<T: Send> Sync for SharedArray<T> {}

/// A pass on several threads, which take blocks as they become free.
struct ParallelPass<'a> {
    pass: &'a Pass<'a>,
    /// One for each of `blocks`.
    partials: SharedArray<f64>,
    blocks: usize,
    /// One for each thread.
    workers: SharedArray<Worker>,
}

impl ParallelPass<'_> {
    /// Runs the pass, and gives the number of rows that are not finite.
    ///
    /// # Safety
    /// As [`run`]. `partials` has `blocks` elements and `workers` has `threads`, and nothing else accesses them.
    unsafe fn run(&self, threads: usize, pool: &mut Pool, private_sums: bool, locks: &Locks, statistics: &mut Statistics<'_>) -> i64 {
        let tables = match statistics {
            Statistics::Apply { sums, counts, negate, .. } => Some((Table::new(sums), Table::new(counts), *negate)),
            Statistics::Leave | Statistics::Tally(_) => None,
        };
        // Eight portions per thread: they end at about the same time, and taking a portion costs next to nothing.
        let step = (self.blocks / (threads * 8)).max(1);
        let (next, skipped) = (AtomicUsize::new(0), AtomicI64::new(0));
        pool.run(threads, &|number| {
            let _environment = DefaultFloatEnvironment::enter();
            // SAFETY: the pool gives each thread a number of its own, below `threads`, which is the length of `workers`.
            let worker = unsafe { &mut *self.workers.0.add(number) };
            let mut private = if private_sums { worker.sums.take() } else { None };
            let mut accumulator = match (&tables, &mut private) {
                (None, _) => Accumulator::none(),
                (Some((_, _, negate)), Some(private)) => Accumulator::private(private, *negate),
                // SAFETY: the tables hold the exclusive borrow of both matrices, and all threads access them through an accumulator with these
                // locks.
                (Some((sums, counts, negate)), None) => unsafe { Accumulator::from_tables(*sums, *counts, Some(locks), *negate) },
            };
            loop {
                let first = next.fetch_add(step, Ordering::Relaxed);
                if first >= self.blocks {
                    break;
                }
                // SAFETY: `next` gives each number once, so no other thread has these blocks; they are fewer than `partials` has left.
                let partials = unsafe { std::slice::from_raw_parts_mut(self.partials.0.add(first), step.min(self.blocks - first)) };
                // SAFETY: the caller promises a validated batch and exclusive access to its outputs, and these blocks are this thread's.
                unsafe { Blocks::new(self.pass, first, partials, worker, &mut accumulator) }.run();
            }
            skipped.fetch_add(accumulator.skipped, Ordering::Relaxed);
            if private_sums {
                worker.sums = private;
            }
        });
        skipped.into_inner()
    }
}
