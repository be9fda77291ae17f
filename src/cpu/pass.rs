//! One pass over the samples of a batch: rows in, loss and gradient out, statistics added.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses, after all checks")]

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Portable, Real, Vectors};
use super::level::Level;
use super::row::{Gradient, Hard, SoftLabel, gradient, softmax};
use super::storage::Storage;
use crate::error::Result;
use crate::samples::{BLOCK, Place, Rows, Sample, Samples};
use crate::state::{Matrix, try_vec};
use crate::statistics::{Counter, FRACTION_BITS, FULL_CLASS};
use crate::tensor::DType;

/// What a pass works on, and how.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub samples: &'a Samples,
    /// S.
    pub soft_labels: &'a Matrix<f32>,
    /// Weight of the hard label.
    pub alpha: f64,
    pub class_weights: Option<&'a [f64]>,
    /// The reduction's divisor; 1 but for the mean. Where it is 0, loss and gradient are 0.
    pub divisor: f64,
    /// Whether each sample's loss is written, rather than their sum.
    pub each: bool,
}

/// What a pass does to the statistics.
pub(crate) enum Statistics<'a> {
    /// Nothing.
    Leave,
    /// Adds to (or subtracts from) A, c and the counters.
    Apply { sums: &'a mut Matrix<i64>, counts: &'a mut Matrix<i64>, counters: &'a mut Matrix<i64>, negate: bool },
    /// Counts, per class, the samples that `Apply` would add.
    Tally(&'a mut [i64]),
}

impl Statistics<'_> {
    /// Counts a row that is kept out because it is not finite.
    #[inline(always)]
    fn skip(&mut self) {
        if let Self::Apply { counters, negate, .. } = self {
            let skipped = &mut counters.row_mut(0)[Counter::SkippedNonFinite as usize];
            *skipped = if *negate { skipped.saturating_sub(1).max(0) } else { skipped.saturating_add(1) };
        }
    }

    /// Counts a sample of `class` that is classified right; gives the sums that its distribution is to be added to, or, where the second value
    /// says so, subtracted from. A full class takes no more.
    #[inline(always)]
    fn count(&mut self, class: usize) -> Option<(&mut [i64], bool)> {
        match self {
            Self::Leave => None,
            Self::Tally(tally) => {
                tally[class] += 1;
                None
            }
            Self::Apply { sums, counts, negate, .. } => {
                let count = &mut counts.row_mut(0)[class];
                if !*negate && *count >= FULL_CLASS {
                    return None;
                }
                *count += if *negate { -1 } else { 1 };
                Some((sums.row_mut(class), *negate))
            }
        }
    }
}

/// Working memory: some rows, and a partial loss per block of samples. It grows to what calls need and is kept.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    f32: RowScratch<f32>,
    f64: RowScratch<f64>,
    partials: Vec<f64>,
}

#[derive(Debug, Default)]
struct RowScratch<R> {
    /// A row of logits that does not lie in the caller's memory as it is needed.
    logits: Vec<R>,
    exponentials: Vec<R>,
    gradient: Vec<R>,
    /// Divided by `weight_scale`.
    class_weights: Vec<R>,
    weight_scale: f64,
}

impl<R: Real> RowScratch<R> {
    fn prepare(&mut self, classes: usize, class_weights: Option<&[f64]>) -> Result<()> {
        let padded = classes.next_multiple_of(64);
        if self.exponentials.len() != padded {
            self.logits = try_vec("a row of logits", classes)?;
            self.gradient = try_vec("a row of gradients", classes)?;
            self.exponentials = try_vec("a row of exponentials", padded)?;
        }
        // Weights may have been loaded anew.
        self.weight_scale = 1.0;
        self.class_weights.clear();
        if let Some(weights) = class_weights {
            if self.class_weights.capacity() < classes {
                self.class_weights = try_vec("class weights", classes)?;
                self.class_weights.clear();
            }
            self.weight_scale = power_of_two_below(weights.iter().copied().fold(0.0, f64::max));
            self.class_weights.extend(weights.iter().map(|&weight| R::from_f64(weight / self.weight_scale)));
        }
        Ok(())
    }
}

/// The largest power of two that is not above `value`; at least the smallest normal number.
fn power_of_two_below(value: f64) -> f64 {
    f64::from_bits(value.to_bits() & f64::INFINITY.to_bits()).max(f64::MIN_POSITIVE)
}

/// Picks the scratch of an arithmetic type.
trait HasScratch: Real {
    fn of(scratch: &mut Scratch) -> (&mut RowScratch<Self>, &mut Vec<f64>);
}

impl HasScratch for f32 {
    fn of(scratch: &mut Scratch) -> (&mut RowScratch<f32>, &mut Vec<f64>) {
        (&mut scratch.f32, &mut scratch.partials)
    }
}

impl HasScratch for f64 {
    fn of(scratch: &mut Scratch) -> (&mut RowScratch<f64>, &mut Vec<f64>) {
        (&mut scratch.f64, &mut scratch.partials)
    }
}

impl Scratch {
    /// Makes the next pass over `samples` unable to fail.
    pub fn prepare(&mut self, samples: &Samples, class_weights: Option<&[f64]>) -> Result<()> {
        match samples.logits.dtype {
            DType::F64 => self.f64.prepare(samples.classes, class_weights)?,
            _ => self.f32.prepare(samples.classes, class_weights)?,
        }
        let blocks = samples.count.div_ceil(BLOCK);
        if self.partials.len() < blocks {
            self.partials = try_vec("partial losses", blocks)?;
        }
        Ok(())
    }
}

/// Runs a pass at `level`; `scratch` was prepared for its samples.
///
/// # Safety
/// The tensors behind `pass.samples` were checked and validated and can be read; loss and gradient can be written and are used by nobody else.
pub(crate) unsafe fn run(level: Level, pass: &Pass<'_>, scratch: &mut Scratch, statistics: &mut Statistics<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match pass.samples.logits.dtype {
            DType::F64 => run_as::<f64>(level, pass, scratch, statistics),
            DType::Bf16 => run_as::<bf16>(level, pass, scratch, statistics),
            DType::F16 => run_as::<f16>(level, pass, scratch, statistics),
            _ => run_as::<f32>(level, pass, scratch, statistics),
        }
    }
}

/// # Safety
/// As [`run`], for logits stored as `L`.
unsafe fn run_as<L: Storage>(level: Level, pass: &Pass<'_>, scratch: &mut Scratch, statistics: &mut Statistics<'_>)
where
    L::Real: HasScratch,
{
    let (rows, partials) = L::Real::of(scratch);
    let samples = pass.samples;
    let blocks = samples.count.div_ceil(BLOCK);
    for (block, partial) in partials[..blocks].iter_mut().enumerate() {
        let range = block * BLOCK..((block + 1) * BLOCK).min(samples.count);
        // SAFETY: the caller's promise; the level was found on this processor.
        *partial = unsafe { run_block_at::<L>(level, pass, range, rows, statistics) };
    }
    if let Some(loss) = samples.loss
        && !pass.each
    {
        let sum = partials[..blocks].iter().fold(0.0, |sum, partial| sum + partial);
        let value = if pass.divisor == 0.0 { 0.0 } else { sum / pass.divisor };
        // SAFETY: the caller's promise; a reduced loss has one element.
        unsafe { loss.write(Place { outer: 0, inner: 0 }, value) };
    }
}

/// # Safety
/// As [`run_as`]; the processor has the level.
unsafe fn run_block_at<L: Storage>(
    level: Level,
    pass: &Pass<'_>,
    range: std::ops::Range<usize>,
    scratch: &mut RowScratch<L::Real>,
    statistics: &mut Statistics<'_>,
) -> f64 {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn avx512<L: Storage>(
        pass: &Pass<'_>,
        range: std::ops::Range<usize>,
        scratch: &mut RowScratch<L::Real>,
        statistics: &mut Statistics<'_>,
    ) -> f64 {
        // SAFETY: the caller's promise.
        unsafe { run_block::<L, Avx512>(pass, range, scratch, statistics) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<L: Storage>(
        pass: &Pass<'_>,
        range: std::ops::Range<usize>,
        scratch: &mut RowScratch<L::Real>,
        statistics: &mut Statistics<'_>,
    ) -> f64 {
        // SAFETY: the caller's promise.
        unsafe { run_block::<L, Avx2>(pass, range, scratch, statistics) }
    }
    // SAFETY: the caller's promise; `Level::detect` names only levels that the processor has.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::<L>(pass, range, scratch, statistics),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::<L>(pass, range, scratch, statistics),
            Level::Portable => run_block::<L, Portable>(pass, range, scratch, statistics),
        }
    }
}

/// Samples `range`, one block: the sum of their losses.
///
/// # Safety
/// As [`run_as`].
#[inline(always)]
unsafe fn run_block<L: Storage, V: Vectors>(
    pass: &Pass<'_>,
    range: std::ops::Range<usize>,
    scratch: &mut RowScratch<L::Real>,
    statistics: &mut Statistics<'_>,
) -> f64 {
    let mut sum = 0.0;
    for index in range {
        let place = pass.samples.place(index);
        // SAFETY: the caller's promise.
        let Some(sample) = (unsafe { pass.samples.sample(place) }) else {
            // SAFETY: as above.
            unsafe { write_constant::<L>(pass, place, 0.0, L::narrow(L::Real::default())) };
            continue;
        };
        // SAFETY: as above.
        sum += unsafe {
            if sample.first == sample.second && pass.class_weights.is_none() {
                run_row::<L, V, false>(pass, place, &sample, scratch, statistics)
            } else {
                run_row::<L, V, true>(pass, place, &sample, scratch, statistics)
            }
        };
    }
    sum
}

/// One row: its loss, times the sample weight.
///
/// # Safety
/// As [`run_as`]; `place` and `sample` belong to the batch.
#[inline(always)]
unsafe fn run_row<L: Storage, V: Vectors, const GENERAL: bool>(
    pass: &Pass<'_>,
    place: Place,
    sample: &Sample,
    scratch: &mut RowScratch<L::Real>,
    statistics: &mut Statistics<'_>,
) -> f64 {
    let samples = pass.samples;
    let silent = pass.divisor == 0.0;
    // With one target twice lam has no effect on q.
    let lam = if sample.first == sample.second { 1.0 } else { sample.lam };
    let soft = SoftLabel {
        first: pass.soft_labels.row(sample.first),
        first_scale: L::Real::from_f64(lam * (1.0 - pass.alpha)),
        second: pass.soft_labels.row(sample.second),
        second_scale: L::Real::from_f64((1.0 - lam) * (1.0 - pass.alpha)),
        weights: &scratch.class_weights,
        weight_scale: scratch.weight_scale,
    };
    let hard = Hard::new(sample, pass.alpha, pass.class_weights);
    let class = sample.class();
    let (found, loss, right) = {
        // SAFETY: the caller's promise; the slice is dropped before the gradient is written, which may take its place.
        let z = unsafe { read_row::<L>(&samples.logits, place, samples.classes, &mut scratch.logits) };
        let found = softmax::<L::Real, V, GENERAL>(z, &soft, &mut scratch.exponentials);
        let Some(softmax) = found else {
            statistics.skip();
            let (loss, entry) = if silent { (0.0, L::Real::default()) } else { (f64::NAN, L::Real::NAN) };
            // SAFETY: the caller's promise; `z` is not used any more.
            unsafe { write_constant::<L>(pass, place, loss, L::narrow(entry)) };
            return loss;
        };
        (softmax, softmax.loss(z, &hard), softmax.is_right(z, class))
    };
    let loss = if silent { 0.0 } else { sample.weight * loss };
    if pass.each
        && let Some(to) = samples.loss
    {
        // SAFETY: the caller's promise.
        unsafe { to.write(place, loss) };
    }
    let sums = if right { statistics.count(class) } else { None };
    if samples.grad.is_none() && sums.is_none() {
        return loss;
    }
    let factor = if silent {
        0.0
    } else {
        // SAFETY: the caller's promise.
        let grad_loss = samples.grad_loss.map_or(1.0, |grad_loss| unsafe { grad_loss.real(place) });
        // In this order a divisor of tiny weights is met by a tiny weight.
        (sample.weight / pass.divisor) * grad_loss
    };
    let entries = samples.classes;
    // SAFETY: the caller's promise; no reference to the logits is alive.
    let direct = samples.grad.as_ref().and_then(|rows| unsafe { direct_row_mut::<L>(rows, place, entries) });
    let indirect = samples.grad.as_ref().filter(|_| direct.is_none());
    let grad = match direct {
        Some(row) => Some(row),
        None => indirect.map(|_| &mut scratch.gradient[..]),
    };
    let what = Gradient { softmax: found, hard, factor, grad };
    let (sums, negate) = sums.map_or((None, false), |(sums, negate)| (Some(sums), negate));
    gradient::<L::Real, V, GENERAL>(&scratch.exponentials, &soft, what, sums, negate);
    if let Some(rows) = indirect {
        // SAFETY: as above.
        unsafe { write_row::<L>(rows, place, &scratch.gradient) };
    }
    loss
}

/// The same loss and the same entry everywhere: a sample that takes no part, or a row of NaN.
///
/// # Safety
/// As [`run_row`].
unsafe fn write_constant<L: Storage>(pass: &Pass<'_>, place: Place, loss: f64, entry: L) {
    // SAFETY: the caller's promise.
    unsafe {
        if pass.each
            && let Some(to) = pass.samples.loss
        {
            to.write(place, loss);
        }
        if let Some(rows) = &pass.samples.grad {
            let start = rows.at(place).cast::<L>();
            for class in 0..pass.samples.classes {
                start.wrapping_offset(class as isize * rows.class as isize).write(entry);
            }
        }
    }
}

/// The logits of a sample: where they lie if they lie right, else in `scratch`.
///
/// # Safety
/// As [`run_row`]; nothing writes the row while the slice is alive.
#[inline(always)]
unsafe fn read_row<'a, L: Storage>(rows: &Rows, place: Place, classes: usize, scratch: &'a mut [L::Real]) -> &'a [L::Real] {
    let start = rows.at(place).cast::<L>();
    if is_real::<L>() && rows.class == 1 {
        // SAFETY: the caller's promise; L and its arithmetic type are the same type.
        return unsafe { std::slice::from_raw_parts(start.cast::<L::Real>(), classes) };
    }
    if rows.class == 1 {
        // SAFETY: the caller's promise; the classes of the sample lie side by side.
        let row = unsafe { std::slice::from_raw_parts(start, classes) };
        for (to, from) in scratch.iter_mut().zip(row) {
            *to = from.widen();
        }
    } else {
        for (class, to) in scratch[..classes].iter_mut().enumerate() {
            // SAFETY: the caller's promise: the row has this class at its stride.
            *to = unsafe { start.wrapping_offset(class as isize * rows.class as isize).read() }.widen();
        }
    }
    &scratch[..classes]
}

/// The gradient of a sample where it lies, if it can be written there.
///
/// # Safety
/// As [`run_row`]; no other reference to the row is alive.
#[inline(always)]
unsafe fn direct_row_mut<'a, L: Storage>(rows: &Rows, place: Place, classes: usize) -> Option<&'a mut [L::Real]> {
    if !is_real::<L>() || rows.class != 1 {
        return None;
    }
    // SAFETY: the caller's promise; L and its arithmetic type are the same type.
    Some(unsafe { std::slice::from_raw_parts_mut(rows.at(place).cast::<L::Real>(), classes) })
}

/// # Safety
/// As [`run_row`].
#[inline(always)]
unsafe fn write_row<L: Storage>(rows: &Rows, place: Place, gradient: &[L::Real]) {
    let start = rows.at(place).cast::<L>();
    for (class, &value) in gradient.iter().enumerate() {
        // SAFETY: the caller's promise: the row has this class at its stride.
        unsafe { start.wrapping_offset(class as isize * rows.class as isize).write(L::narrow(value)) };
    }
}

fn is_real<L: Storage>() -> bool {
    std::any::TypeId::of::<L>() == std::any::TypeId::of::<L::Real>()
}

/// Statistics from given probabilities, which lie where a batch has its logits. All or nothing: the first walk only checks.
///
/// # Safety
/// As [`run`].
pub(crate) unsafe fn accumulate(samples: &Samples, statistics: &mut Statistics<'_>) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        match samples.logits.dtype {
            DType::F64 => accumulate_as::<f64>(samples, statistics),
            DType::Bf16 => accumulate_as::<bf16>(samples, statistics),
            DType::F16 => accumulate_as::<f16>(samples, statistics),
            _ => accumulate_as::<f32>(samples, statistics),
        }
    }
}

/// # Safety
/// As [`accumulate`], for probabilities stored as `L`.
unsafe fn accumulate_as<L: Storage>(samples: &Samples, statistics: &mut Statistics<'_>) -> Result<()> {
    let rows = &samples.logits;
    // SAFETY: the caller's promise: the row has this class at its stride.
    let read = |place: Place, class: usize| unsafe {
        rows.at(place).cast::<L>().wrapping_offset(class as isize * rows.class as isize).read().widen().to_f64()
    };
    let row = |place: Place| (0..samples.classes).map(move |class| (class, read(place, class)));
    for checking in [true, false] {
        for index in 0..samples.count {
            let place = samples.place(index);
            // SAFETY: the caller's promise.
            let Some(sample) = (unsafe { samples.sample(place) }) else { continue };
            let skipped = row(place).any(|(_, p)| !p.is_finite());
            if checking {
                if let Some((class, p)) = row(place).find(|(_, p)| !skipped && !(0.0..=1.0).contains(p)) {
                    return samples.not_a_probability(place, class, p);
                }
                continue;
            }
            let class = sample.class();
            let right = !skipped && row(place).all(|(k, p)| if k < class { p < read(place, class) } else { p <= read(place, class) });
            if skipped {
                statistics.skip();
            } else if right && let Some((sums, negate)) = statistics.count(class) {
                for (to, (_, p)) in sums.iter_mut().zip(row(place)) {
                    let units = (p * f64::from(1u32 << FRACTION_BITS)).round_ties_even() as i64;
                    *to = to.wrapping_add(if negate { -units } else { units });
                }
            }
        }
    }
    Ok(())
}
