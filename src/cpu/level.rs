//! The instruction sets that kernels are compiled for, and the choice of one at run time. Results have the same bits at each.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use crate::error::{Result, fail};

/// An instruction set that this processor was found to have. Only detection makes values of this type, so a value is the proof that functions
/// compiled for its instruction set may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(InstructionSet);

/// The instruction sets, in ascending order: the same source is compiled for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InstructionSet {
    /// The target's baseline.
    Portable,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL, in addition to those of [`Avx2`](Self::Avx2).
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl InstructionSet {
    /// By its name in the environment variable `OLS_ISA`.
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "portable" => Some(Self::Portable),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Some(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Some(Self::Avx512),
            _ => None,
        }
    }
}

impl Level {
    /// The best level of this processor, or a lower one that the environment variable `OLS_ISA` names: `portable`, `avx2` or `avx512`.
    pub fn detect() -> Result<Self> {
        // Read once: a program may change its environment in one thread while another one creates a criterion.
        static NAME: OnceLock<Option<OsString>> = OnceLock::new();
        Self::best().limited_to(NAME.get_or_init(|| std::env::var_os("OLS_ISA")).as_deref())
    }

    /// This level, or the lower one that is named; an empty name is none.
    fn limited_to(self, name: Option<&OsStr>) -> Result<Self> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(self) };
        match name.to_str().and_then(InstructionSet::from_name) {
            Some(limit) => Ok(self.at_most(limit)),
            None => fail!(InvalidArgument, "the environment variable OLS_ISA = {name:?} is not portable, avx2 or avx512"),
        }
    }

    /// The best level of this processor.
    #[cfg(target_arch = "x86_64")]
    fn best() -> Self {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma") && has!("f16c");
        Self(if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            InstructionSet::Avx512
        } else if avx2 {
            InstructionSet::Avx2
        } else {
            InstructionSet::Portable
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn best() -> Self {
        Self(InstructionSet::Portable)
    }

    /// The lower of this level and `limit`: a processor that has an instruction set has all lower ones.
    fn at_most(self, limit: InstructionSet) -> Self {
        Self(self.0.min(limit))
    }

    /// The instruction set, which this processor has.
    pub(super) fn instruction_set(self) -> InstructionSet {
        self.0
    }

    /// Every level of this processor, the lowest first.
    #[cfg(test)]
    pub fn all() -> Vec<Self> {
        let best = Self::best();
        let known = ["portable", "avx2", "avx512"].iter().filter_map(|name| InstructionSet::from_name(name));
        known.filter(|set| *set <= best.0).map(|set| best.at_most(set)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Criterion, Element, Initial, Logit, Options, Reduction, TensorMut, TensorRef, bf16, f16};

    /// Numbers in [-scale, scale] from a fixed sequence (splitmix64).
    fn noise(seed: u64, scale: f64) -> impl Iterator<Item = f64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) as i64 as f64) / (i64::MAX as f64) * scale
        })
    }

    #[test]
    fn a_name_lowers_the_level_and_never_raises_it() {
        let limited = |level: Level, name: &str| level.limited_to(Some(OsStr::new(name)));
        for level in Level::all() {
            assert_eq!(level.limited_to(None).unwrap(), level);
            assert_eq!(limited(level, "").unwrap(), level);
            assert_eq!(limited(level, "portable").unwrap(), Level(InstructionSet::Portable));
            assert!(limited(level, "AVX2").is_err());
            #[cfg(target_arch = "x86_64")]
            {
                assert_eq!(limited(level, "avx512").unwrap(), level);
                let expected = if level.0 == InstructionSet::Avx512 { InstructionSet::Avx2 } else { level.0 };
                assert_eq!(limited(level, "avx2").unwrap(), Level(expected));
            }
        }
    }

    /// Everything that a level computes for one batch, as bits; with the classes of a sample side by side, or the samples of a class.
    fn results<L: Logit + Element + bytemuck::NoUninit + Default>(
        level: Level,
        classes: usize,
        columns: bool,
        to_logit: impl Fn(f64) -> L,
    ) -> Vec<u64>
    where
        L::Loss: bytemuck::NoUninit,
    {
        let samples = 37;
        let options = Options::new(classes).initial(Initial::Smoothing(0.2)).alpha(0.4).reduction(Reduction::None);
        let mut logits: Vec<L> = noise(classes as u64, 9.0).take(samples * classes).map(&to_logit).collect();
        logits[classes + 1] = to_logit(f64::NEG_INFINITY);
        logits[3 * classes] = to_logit(f64::NAN);
        let targets: Vec<i32> = (0..samples).map(|n| if n % 9 == 4 { -100 } else { (n * 7 % classes) as i32 }).collect();
        for (n, &target) in targets.iter().enumerate().filter(|(n, target)| n % 3 != 0 && **target >= 0) {
            logits[n * classes + target as usize] = to_logit(9.5);
        }
        // Far from 0, and the maximum twice.
        for (logit, z) in logits[6 * classes..7 * classes].iter_mut().zip(noise(1, 9.0)) {
            *logit = to_logit(z - 1000.0);
        }
        logits[7 * classes] = to_logit(9.5);
        let second: Vec<i32> = (0..samples).map(|n| (n * 5 % classes) as i32).collect();
        let weights = vec![0.75; classes];
        let (shape, strides) = ([samples, classes], if columns { [1, samples as isize] } else { [classes as isize, 1] });
        let at = |index: usize| if columns { index % classes * samples + index / classes } else { index };
        let mut placed = logits.clone();
        logits.iter().enumerate().for_each(|(index, &logit)| placed[at(index)] = logit);
        let mut bits = Vec::new();
        for general in [false, true] {
            let options = if general { options.clone().class_weights(weights.clone()) } else { options.clone() };
            let mut criterion = Criterion::new(&options).unwrap().at_level(level);
            let mut gradient = vec![L::default(); logits.len()];
            let mut losses = vec![L::Loss::default(); samples];
            let mut batch = Batch::new(TensorRef::with_strides(&placed, &shape, 0, &strides).unwrap(), targets[..].into());
            if general {
                batch = batch.second_targets(second[..].into(), TensorRef::scalar(&0.7f32));
            }
            let grad = TensorMut::with_strides(&mut gradient, &shape, 0, &strides).unwrap();
            criterion.forward(&batch, Some(TensorMut::new(&mut losses, &shape[..1]).unwrap()), Some(grad)).unwrap();
            // Of the row with NaN it is said elsewhere what it gives; the bits of NaN are nobody's promise.
            losses[3] = L::Loss::default();
            let gradient = (0..logits.len()).map(|index| if index / classes == 3 { L::default() } else { gradient[at(index)] });
            bits.extend(bytemuck::cast_slice::<L::Loss, u8>(&losses).iter().map(|&byte| u64::from(byte)));
            bits.extend(bytemuck::cast_slice::<L, u8>(&gradient.collect::<Vec<_>>()).iter().map(|&byte| u64::from(byte)));
            bits.extend((0..classes).flat_map(|class| criterion.sums(class).to_vec()).map(|sum| sum as u64));
            bits.extend(criterion.counts().iter().chain(criterion.counters()).map(|&count| count as u64));
            assert!(criterion.counts().iter().sum::<i64>() > 5);
            criterion.next_epoch().unwrap();
            bits.extend((0..classes).flat_map(|class| criterion.soft_label(class).to_vec()).map(|s| u64::from(s.to_bits())));
        }
        bits
    }

    /// Compares all levels and layouts with rows at the best level, which come a second time as well.
    fn compare<L: Logit + Element + bytemuck::NoUninit + Default>(classes: usize, to_logit: impl Fn(f64) -> L + Copy)
    where
        L::Loss: bytemuck::NoUninit,
    {
        let levels = Level::all();
        let best = *levels.last().unwrap();
        let expected = results(best, classes, false, to_logit);
        for (level, columns) in levels.into_iter().flat_map(|level| [(level, false), (level, true)]) {
            let (how, dtype) = (if columns { "columns" } else { "rows" }, L::DTYPE);
            let found = results(level, classes, columns, to_logit);
            assert!(found == expected, "{level:?} in {how} differs from {best:?} at {classes} classes, {dtype:?}");
        }
    }

    fn compare_dtypes(classes: usize) {
        compare(classes, |x| x as f32);
        compare(classes, |x| x);
        compare(classes, bf16::from_f64);
        compare(classes, f16::from_f64);
    }

    #[test]
    fn every_level_and_layout_gives_the_same_bits() {
        for classes in [2, 3, 7, 8, 9, 15, 16, 17, 21, 31, 33, 63, 64, 65, 100, 127, 128, 129, 300] {
            compare_dtypes(classes);
        }
    }

    /// Apart from the others, as the emulated processor of `tests/avx512` is too slow for so large a state.
    #[test]
    fn every_level_and_layout_gives_the_same_bits_of_thousands_of_classes() {
        for classes in [1000, 2049] {
            compare_dtypes(classes);
        }
    }
}
