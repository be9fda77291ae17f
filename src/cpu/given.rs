//! Statistics from given probabilities.
#![allow(unsafe_code, reason = "rows are read through the caller's addresses, after all checks")]

use half::{bf16, f16};

use super::adder::Adder;
use super::lanes::Real;
use super::pass::{Statistics, note_skipped};
use super::storage::Storage;
use crate::error::Result;
use crate::samples::{Place, Samples};
use crate::statistics::FRACTION_BITS;
use crate::tensor::DType;

/// Statistics from given probabilities, which lie where a batch has its logits. All or nothing: the first walk only checks.
///
/// # Safety
/// As [`run`](super::pass::run).
pub(crate) unsafe fn accumulate(samples: &Samples, statistics: &mut Statistics<'_>) -> Result<()> {
    let mut adder = Adder::of(statistics);
    // SAFETY: the caller's promise.
    unsafe {
        match samples.logits.dtype {
            DType::F64 => accumulate_as::<f64>(samples, &mut adder)?,
            DType::Bf16 => accumulate_as::<bf16>(samples, &mut adder)?,
            DType::F16 => accumulate_as::<f16>(samples, &mut adder)?,
            _ => accumulate_as::<f32>(samples, &mut adder)?,
        }
    }
    let skipped = adder.skipped;
    note_skipped(statistics, skipped);
    Ok(())
}

/// # Safety
/// As [`accumulate`], for probabilities stored as `L`.
unsafe fn accumulate_as<L: Storage>(samples: &Samples, adder: &mut Adder<'_>) -> Result<()> {
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
                adder.skip(1);
            } else if right {
                let mut adder = adder.unshared();
                if !adder.count(class) {
                    continue;
                }
                let negates = adder.negates();
                for (to, (_, p)) in adder.sums(class).iter_mut().zip(row(place)) {
                    let units = (p * f64::from(1u32 << FRACTION_BITS)).round_ties_even() as i64;
                    *to = to.wrapping_add(if negates { -units } else { units });
                }
            }
        }
    }
    Ok(())
}
