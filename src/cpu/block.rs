//! Blocks of samples, at any level, by the kernel that its number of classes asks for.
#![allow(unsafe_code, reason = "functions compiled for a level are called on processors that have it; rows are the caller's memory")]

use super::adder::Adder;
use super::labels::LANES;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Portable, Real, Vectors};
use super::level::Level;
use super::memory::Group;
use super::pass::Pass;
use super::rows;
use super::scratch::{RealScratch, Worker};
use super::storage::Storage;
use super::tile;
use crate::samples::BLOCK;

/// Picks the scratch of an arithmetic type.
pub(super) trait HasScratch: Real {
    fn of(worker: &mut Worker) -> (&mut RealScratch<Self>, &mut Vec<u64>);
}

impl HasScratch for f32 {
    fn of(worker: &mut Worker) -> (&mut RealScratch<f32>, &mut Vec<u64>) {
        (&mut worker.f32, &mut worker.gathered)
    }
}

impl HasScratch for f64 {
    fn of(worker: &mut Worker) -> (&mut RealScratch<f64>, &mut Vec<u64>) {
        (&mut worker.f64, &mut worker.gathered)
    }
}

/// The blocks from number `first` on, one for each of `partials`, which become the sums of their losses.
///
/// # Safety
/// As `pass::run`; the processor has the pass's level, and the worker was prepared.
pub(super) unsafe fn run_at<L: Storage<Real: HasScratch>>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn avx512<L: Storage<Real: HasScratch>>(
        pass: &Pass<'_>,
        first: usize,
        partials: &mut [f64],
        worker: &mut Worker,
        adder: &mut Adder<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { run::<L, Avx512>(pass, first, partials, worker, adder) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<L: Storage<Real: HasScratch>>(
        pass: &Pass<'_>,
        first: usize,
        partials: &mut [f64],
        worker: &mut Worker,
        adder: &mut Adder<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { run::<L, Avx2>(pass, first, partials, worker, adder) }
    }
    // SAFETY: the caller's promise; `Level::detect` names only levels that the processor has.
    unsafe {
        match pass.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::<L>(pass, first, partials, worker, adder),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::<L>(pass, first, partials, worker, adder),
            Level::Portable => run::<L, Portable>(pass, first, partials, worker, adder),
        }
    }
}

/// # Safety
/// As [`run_at`].
#[inline(always)]
unsafe fn run<L: Storage<Real: HasScratch>, V: Vectors>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    let samples = pass.samples;
    let (scratch, gathered) = L::Real::of(worker);
    let tiles = samples.classes <= tile::MOST_CLASSES;
    let along_inner = samples.inner != 1;
    let most = if tiles { tile::STRETCH } else { LANES };
    let (mut index, end) = (first * BLOCK, samples.count.min((first + partials.len()) * BLOCK));
    partials.fill(0.0);
    while index < end {
        let place = samples.place(index);
        // Samples that are taken together share the outer index, or have none but it.
        let neighbours = if along_inner { samples.inner - place.inner } else { usize::MAX };
        let count = most.min(end - index).min(neighbours);
        // SAFETY: the caller's promise, for all that follows: these samples are the batch's, their rows can be read, and gradients written.
        let logits = unsafe { Group::<L>::new(&samples.logits, samples.classes, place, count, along_inner) };
        // SAFETY: as above.
        let grad = samples.grad.as_ref().map(|grad| unsafe { Group::<L>::new(grad, samples.classes, place, count, along_inner) });
        let mut losses = [0.0; tile::STRETCH];
        let losses = &mut losses[..count];
        if tiles {
            let RealScratch { tile, class_weights, .. } = &mut *scratch;
            // SAFETY: as above; nobody else uses the rows.
            unsafe { tile::run::<L, V>(pass, place, &logits, grad.as_ref(), class_weights, tile, adder, losses) };
        } else {
            let grad = grad.as_ref();
            // SAFETY: as above.
            unsafe {
                if samples.has_second_targets() || pass.class_weights.is_some() {
                    rows::run::<L, V, true>(pass, place, &logits, grad, scratch, gathered, adder, losses);
                } else {
                    rows::run::<L, V, false>(pass, place, &logits, grad, scratch, gathered, adder, losses);
                }
            }
        }
        for (lane, &loss) in losses.iter().enumerate() {
            if pass.each
                && let Some(to) = samples.loss
            {
                // SAFETY: as above.
                unsafe { to.write(samples.after(place, lane), loss) };
            }
            partials[(index + lane) / BLOCK - first] += loss;
        }
        index += count;
    }
}
