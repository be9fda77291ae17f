//! Adding probabilities that the caller computed to the statistics.
#![allow(unsafe_code, reason = "rows are read through the caller's addresses, after all checks")]

use half::{bf16, f16};

use super::accumulator::Accumulator;
use super::lanes::Real;
use super::pass::{Statistics, note_skipped};
use super::storage::Storage;
use crate::error::Result;
use crate::samples::{Place, Samples};
use crate::statistics::FRACTION_BITS;
use crate::tensor::DType;

/// Adds the probabilities that a batch has in place of logits. All or nothing: a first walk over the batch only checks.
///
/// # Safety
/// As [`run`](super::pass::run).
pub(crate) unsafe fn accumulate(samples: &Samples, statistics: &mut Statistics<'_>) -> Result<()> {
    let mut accumulator = Accumulator::new(statistics);
    // SAFETY: the caller promises a validated batch that can be read.
    unsafe {
        match samples.logits.dtype {
            DType::F64 => accumulate_as::<f64>(samples, &mut accumulator)?,
            DType::Bf16 => accumulate_as::<bf16>(samples, &mut accumulator)?,
            DType::F16 => accumulate_as::<f16>(samples, &mut accumulator)?,
            _ => accumulate_as::<f32>(samples, &mut accumulator)?,
        }
    }
    let skipped = accumulator.skipped;
    note_skipped(statistics, skipped);
    Ok(())
}

/// As [`accumulate`], for probabilities stored as `L`.
///
/// # Safety
/// As [`accumulate`].
unsafe fn accumulate_as<L: Storage>(samples: &Samples, accumulator: &mut Accumulator<'_>) -> Result<()> {
    let rows = &samples.logits;
    // SAFETY: the caller promises that rows can be read, and `place` and `class` are ones that the batch has.
    let read = |place: Place, class: usize| unsafe {
        rows.at(place).cast::<L>().wrapping_offset(class as isize * rows.class as isize).read().widen().to_f64()
    };
    let row = |place: Place| (0..samples.classes).map(move |class| (class, read(place, class)));
    for checking in [true, false] {
        for index in 0..samples.count {
            let place = samples.place(index);
            // SAFETY: the caller promises a validated batch, which has this place.
            let Some(sample) = (unsafe { samples.sample(place) }) else { continue };
            let skipped = row(place).any(|(_, p)| !p.is_finite());
            if checking {
                if let Some((class, p)) = row(place).find(|(_, p)| !skipped && !(0.0..=1.0).contains(p)) {
                    return samples.not_a_probability(place, class, p);
                }
                continue;
            }
            let class = sample.class();
            let correct = !skipped && row(place).all(|(k, p)| if k < class { p < read(place, class) } else { p <= read(place, class) });
            if skipped {
                accumulator.skip(1);
            } else if correct {
                let negates = accumulator.negates();
                let Some(class_row) = accumulator.row(class) else { continue };
                for (to, (_, p)) in class_row.sums.iter_mut().zip(row(place)) {
                    let units = (p * f64::from(1u32 << FRACTION_BITS)).round_ties_even() as i64;
                    *to = to.wrapping_add(if negates { -units } else { units });
                }
            }
        }
    }
    Ok(())
}
