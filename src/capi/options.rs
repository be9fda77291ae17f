//! The options of a criterion, and what their numbers mean.

use std::mem::offset_of;

use safer_ffi::prelude::*;

use super::args::{Growing, OutputStruct, Region, read_struct};
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::status::ols_status_t;
use super::tensor::{OLS_DEVICE_CPU, OLS_DEVICE_CUDA, device, ols_tensor_t};
use crate::criterion::read_matrix;
use crate::cuda::check_host_memory;
use crate::error::{Result, fail};
use crate::options::{EmptyClass, Initial, Mode, Options, Preset, Reduction};
use crate::state::{StateMemory, try_vec};
use crate::tensor::{DType, Device, DeviceKind, RawTensor};

/// The soft labels of the first epoch.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_initial_t {
    /// `1 - smoothing` for the class itself, `smoothing / (K - 1)` elsewhere.
    OLS_INITIAL_SMOOTHING = 0,
    /// 1/K everywhere.
    OLS_INITIAL_UNIFORM = 1,
    /// 0 everywhere.
    OLS_INITIAL_ZERO = 2,
    /// 1 for the class itself, 0 elsewhere.
    OLS_INITIAL_ONE_HOT = 3,
    /// Those in `initial_soft_labels`.
    OLS_INITIAL_MATRIX = 4,
}

/// The soft label of a class that was not measured in an epoch.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_empty_class_t {
    /// The class keeps the row it has.
    OLS_EMPTY_CLASS_KEEP = 0,
    /// 1/K everywhere, as the authors' code does.
    OLS_EMPTY_CLASS_UNIFORM = 1,
    /// The row that the class began with.
    OLS_EMPTY_CLASS_INITIAL = 2,
    /// 1 for the class itself, 0 elsewhere.
    OLS_EMPTY_CLASS_ONE_HOT = 3,
    /// 0 everywhere, as the PyTorch package does: the class then trains against its hard label alone.
    OLS_EMPTY_CLASS_ZERO = 4,
}

/// How the losses of a batch become one number.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_reduction_t {
    /// One loss per sample, times its sample weight v.
    OLS_REDUCTION_NONE = 0,
    /// `sum v*loss / sum v*w[y]` over the samples that take part, as PyTorch's cross entropy has it; 0 where the divisor is 0.
    OLS_REDUCTION_MEAN = 1,
    /// `sum v*loss`.
    OLS_REDUCTION_SUM = 2,
}

/// Whether a forward pass adds to the statistics.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_mode_t {
    /// A forward pass adds the distributions of the samples that are classified right.
    OLS_MODE_TRAIN = 0,
    /// A forward pass changes no state.
    OLS_MODE_EVAL = 1,
}

/// Options that reproduce what others do.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_preset_t {
    /// The PyTorch package: `OLS_INITIAL_SMOOTHING` with 0.1, and `OLS_EMPTY_CLASS_ZERO`.
    OLS_PRESET_REFERENCE = 0,
    /// The authors' released CIFAR code: `OLS_INITIAL_ZERO` and `OLS_EMPTY_CLASS_UNIFORM`.
    OLS_PRESET_PAPER = 1,
}

/// `ols_options_t.flags`: the memory that `soft_labels`, `sums`, `counts` and `counters` name holds a state already, which is taken over as it is.
pub const OLS_OPTIONS_ADOPT_STATE: u32 = 1;

/// What a criterion is told at its creation. Set it up with `ols_options_init`, set `num_classes`, and what else is not to be the default.
///
/// `soft_labels`, `sums`, `counts` and `counters` may name memory of the caller's for the state; what is not given is the library's own. Rows are
/// contiguous and may lie further apart than K; memory must not overlap. It is the caller's to read and to change between calls. Three uses: the
/// tensors of a framework, which saves and sends them around itself; memory shared by processes; a state that outlives its criterion.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_options_t {
    /// Bytes of this struct: `sizeof(ols_options_t)`.
    pub struct_size: usize,
    /// K, at least 2. There is no default.
    pub num_classes: i64,
    /// Weight of the hard label in [0, 1]; the soft label weighs `1 - alpha`. Default 0.5.
    pub alpha: f64,
    /// For `OLS_INITIAL_SMOOTHING`, in [0, 1]. Default 0.1.
    pub smoothing: f64,
    /// Share of the old soft label in the new one, in [0, 1). Default 0.
    pub momentum: f64,
    /// A class whose largest soft label is at least this keeps its row for good; greater than 0. Default INFINITY: never. Mind the start: a smoothing
    /// of 0.1 puts 0.9 on the diagonal, so 0.88 freezes every class at once.
    pub freeze_above: f64,
    /// Samples of a class in an epoch that make it measured, at least 1. Default 1.
    pub min_count: i64,
    /// A sample with this target takes no part. Default -100.
    pub ignore_index: i64,
    /// An `ols_initial_t`. Default `OLS_INITIAL_SMOOTHING`.
    pub initial: i32,
    /// An `ols_empty_class_t`. Default `OLS_EMPTY_CLASS_KEEP`.
    pub empty_class: i32,
    /// An `ols_reduction_t`. Default `OLS_REDUCTION_MEAN`.
    pub reduction: i32,
    /// The `ols_mode_t` to begin in. Default `OLS_MODE_TRAIN`.
    pub mode: i32,
    /// Where the tensors of a call live: `OLS_DEVICE_CPU` (default) or `OLS_DEVICE_CUDA`.
    pub device_type: i32,
    /// Which CUDA device. Default 0.
    pub device_id: i32,
    /// The most threads that a call may use, the caller's own included; 0: as many as the process may run on. Results do not depend on it. Default 0.
    /// Threads are made for the first batch that is worth them, wait asleep, and end with the criterion.
    pub n_threads: i32,
    /// 0 or `OLS_OPTIONS_ADOPT_STATE`.
    pub flags: u32,
    /// w: f32 or f64 of shape (K), finite and >= 0, in host memory; copied. Not given: 1 each.
    pub class_weights: ols_tensor_t,
    /// f32 or f64 of shape (K, K), a row per class, finite and >= 0 as f32, in host memory; copied. With `OLS_INITIAL_MATRIX` alone.
    pub initial_soft_labels: ols_tensor_t,
    /// Memory for S: f32 (K, K).
    pub soft_labels: ols_tensor_t,
    /// Memory for A: i64 (K, K).
    pub sums: ols_tensor_t,
    /// Memory for c: i64 (K).
    pub counts: ols_tensor_t,
    /// Memory for the counters: i64 (`OLS_COUNTERS`).
    pub counters: ols_tensor_t,
}

// SAFETY: `repr(C)`, begins with a `usize`, has no padding (asserted below), and holds numbers and addresses alone.
unsafe impl Growing for ols_options_t {
    const NAME: &str = "ols_options_t";
    const FIRST_SIZE: usize = offset_of!(Self, counters) + size_of::<ols_tensor_t>();
    const DEFAULT: Self = Self {
        struct_size: 0,
        num_classes: 0,
        alpha: 0.5,
        smoothing: Options::DEFAULT_SMOOTHING,
        momentum: 0.0,
        freeze_above: f64::INFINITY,
        min_count: 1,
        ignore_index: -100,
        initial: ols_initial_t::OLS_INITIAL_SMOOTHING as i32,
        empty_class: ols_empty_class_t::OLS_EMPTY_CLASS_KEEP as i32,
        reduction: ols_reduction_t::OLS_REDUCTION_MEAN as i32,
        mode: ols_mode_t::OLS_MODE_TRAIN as i32,
        device_type: OLS_DEVICE_CPU,
        device_id: 0,
        n_threads: 0,
        flags: 0,
        class_weights: ols_tensor_t::ABSENT,
        initial_soft_labels: ols_tensor_t::ABSENT,
        soft_labels: ols_tensor_t::ABSENT,
        sums: ols_tensor_t::ABSENT,
        counts: ols_tensor_t::ABSENT,
        counters: ols_tensor_t::ABSENT,
    };
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<ols_options_t>() == 8 * 8 + 8 * 4 + 6 * 80, "no padding");

/// A C enum's values beside the core's.
trait Enumerated: Copy + PartialEq + 'static {
    /// All values; the position of each is its number.
    const VALUES: &'static [Self];

    fn from_number(name: &str, number: i32) -> Result<Self> {
        let Some(&value) = usize::try_from(number).ok().and_then(|number| Self::VALUES.get(number)) else {
            fail!(InvalidArgument, "{name} = {number} is outside [0, {}]", Self::VALUES.len() - 1);
        };
        Ok(value)
    }

    fn number(self) -> i32 {
        Self::VALUES.iter().position(|&value| value == self).map_or_else(|| unreachable!("every value has its number"), |at| at as i32)
    }
}

impl Enumerated for EmptyClass {
    const VALUES: &'static [Self] = &[Self::Keep, Self::Uniform, Self::Initial, Self::OneHot, Self::Zero];
}
impl Enumerated for Reduction {
    const VALUES: &'static [Self] = &[Self::None, Self::Mean, Self::Sum];
}
impl Enumerated for Mode {
    const VALUES: &'static [Self] = &[Self::Train, Self::Eval];
}
impl Enumerated for Preset {
    const VALUES: &'static [Self] = &[Self::Reference, Self::Paper];
}
impl Enumerated for ols_initial_t {
    const VALUES: &'static [Self] = &[
        Self::OLS_INITIAL_SMOOTHING,
        Self::OLS_INITIAL_UNIFORM,
        Self::OLS_INITIAL_ZERO,
        Self::OLS_INITIAL_ONE_HOT,
        Self::OLS_INITIAL_MATRIX,
    ];
}

/// The mode that a C caller's number names.
pub(super) fn mode_from_number(number: i32) -> Result<Mode> {
    Mode::from_number("mode", number)
}

/// The number of a mode.
pub(super) fn number_of_mode(mode: Mode) -> i32 {
    mode.number()
}

/// What `ols_create` hands to the core.
pub(super) struct CreationOptions {
    pub options: Options,
    pub memory: StateMemory,
}

impl ols_options_t {
    /// The options as the core takes them. `at` is the address that they were read from, `out` the memory that will be written.
    ///
    /// # Safety
    /// The tensors of class weights and initial soft labels can be read.
    pub(super) unsafe fn to_core(self, at: *const Self, out: &Region<'_>) -> Result<CreationOptions> {
        let flags = self.flags;
        if flags & !OLS_OPTIONS_ADOPT_STATE != 0 {
            fail!(InvalidArgument, "options.flags = {flags:#x} has bits outside {OLS_OPTIONS_ADOPT_STATE:#x}");
        }
        let classes = match usize::try_from(self.num_classes) {
            Ok(classes) if (2..=i32::MAX as usize).contains(&classes) => classes,
            _ => fail!(InvalidArgument, "num_classes = {} is outside [2, {}]", self.num_classes, i32::MAX),
        };
        if !(0.0..=1.0).contains(&self.smoothing) {
            fail!(InvalidArgument, "smoothing = {} is outside [0, 1]", self.smoothing);
        }
        let device = device("", self.device_type, self.device_id)?;
        let Ok(threads) = usize::try_from(self.n_threads) else {
            fail!(InvalidArgument, "n_threads = {} is outside [0, {}]", self.n_threads, Options::MAX_THREADS);
        };
        let initial = ols_initial_t::from_number("initial", self.initial)?;
        let mut options = Options::new(classes)
            .alpha(self.alpha)
            .momentum(self.momentum)
            .freeze_above((self.freeze_above != f64::INFINITY).then_some(self.freeze_above))
            .min_count(self.min_count)
            .ignore_index(self.ignore_index)
            .empty_class(EmptyClass::from_number("empty_class", self.empty_class)?)
            .reduction(Reduction::from_number("reduction", self.reduction)?)
            .mode(mode_from_number(self.mode)?)
            .device(device)
            .threads(threads);
        // All numbers first: tensors of absurd sizes are not worth a look when one of them is wrong.
        options.validate()?;

        let weights = self.class_weights.to_optional_raw("class_weights")?;
        let matrix = self.initial_soft_labels.to_optional_raw("initial_soft_labels")?;
        let memory = StateMemory {
            soft_labels: self.soft_labels.to_optional_raw("soft_labels")?,
            sums: self.sums.to_optional_raw("sums")?,
            counts: self.counts.to_optional_raw("counts")?,
            counters: self.counters.to_optional_raw("counters")?,
            adopt: flags & OLS_OPTIONS_ADOPT_STATE != 0,
        };
        let state = [("soft_labels", memory.soft_labels), ("sums", memory.sums), ("counts", memory.counts), ("counters", memory.counters)];
        let mut given = state.iter().filter_map(|(name, tensor)| Some((*name, tensor.as_ref()?))).peekable();
        if memory.adopt && given.peek().is_none() {
            fail!(InvalidArgument, "options.flags has OLS_OPTIONS_ADOPT_STATE, but no memory of a state is given");
        }
        let mut inputs = vec![Region::bytes("options", at.cast(), self.struct_size)];
        inputs.extend(weights.iter().map(|tensor| Region::tensor("class_weights", tensor)));
        inputs.extend(matrix.iter().map(|tensor| Region::tensor("initial_soft_labels", tensor)));
        out.check_apart(&inputs)?;
        for (name, tensor) in given {
            let region = Region::tensor(name, tensor);
            region.check_apart(&inputs)?;
            region.check_apart(std::slice::from_ref(out))?;
        }

        if device.kind == DeviceKind::Cuda {
            for (name, tensor) in [("class_weights", &weights), ("initial_soft_labels", &matrix)] {
                tensor.as_ref().map_or(Ok(()), |tensor| check_host_memory(device, name, tensor))?;
            }
        }
        // SAFETY: the caller's promise.
        options.class_weights = weights.map(|tensor| unsafe { read_weights(&tensor, classes) }).transpose()?;
        options.initial = match (initial, matrix) {
            // SAFETY: the caller's promise.
            (ols_initial_t::OLS_INITIAL_MATRIX, Some(matrix)) => Initial::Matrix(unsafe { read_initial(&matrix, classes)? }),
            (ols_initial_t::OLS_INITIAL_MATRIX, None) => {
                fail!(InvalidArgument, "initial = {} (OLS_INITIAL_MATRIX), but initial_soft_labels is not given", self.initial)
            }
            (_, Some(_)) => fail!(
                InvalidArgument,
                "initial_soft_labels is given, but initial = {} is not OLS_INITIAL_MATRIX ({})",
                self.initial,
                ols_initial_t::OLS_INITIAL_MATRIX as i32
            ),
            (ols_initial_t::OLS_INITIAL_SMOOTHING, None) => Initial::Smoothing(self.smoothing),
            (ols_initial_t::OLS_INITIAL_UNIFORM, None) => Initial::Uniform,
            (ols_initial_t::OLS_INITIAL_ZERO, None) => Initial::Zero,
            (ols_initial_t::OLS_INITIAL_ONE_HOT, None) => Initial::OneHot,
        };
        Ok(CreationOptions { options, memory })
    }

    /// The options of a criterion, as C sees them; tensors are views.
    fn from_core(options: &Options) -> Self {
        let (initial, smoothing, matrix) = match &options.initial {
            Initial::Smoothing(eps) => (ols_initial_t::OLS_INITIAL_SMOOTHING, *eps, None),
            Initial::Uniform => (ols_initial_t::OLS_INITIAL_UNIFORM, Options::DEFAULT_SMOOTHING, None),
            Initial::Zero => (ols_initial_t::OLS_INITIAL_ZERO, Options::DEFAULT_SMOOTHING, None),
            Initial::OneHot => (ols_initial_t::OLS_INITIAL_ONE_HOT, Options::DEFAULT_SMOOTHING, None),
            Initial::Matrix(matrix) => (ols_initial_t::OLS_INITIAL_MATRIX, Options::DEFAULT_SMOOTHING, Some(matrix)),
        };
        let size = options.classes as i64;
        let view = |data: *const u8, dtype, ndim| {
            let (shape, strides) = if ndim == 1 { ([size, 1, 1], [1, 0, 0]) } else { ([size, size, 1], [size, 1, 0]) };
            ols_tensor_t::from_raw(&RawTensor { data: data.cast_mut(), device: Device::CPU, dtype, ndim, shape, strides })
        };
        Self {
            num_classes: size,
            alpha: options.alpha,
            smoothing,
            momentum: options.momentum,
            freeze_above: options.freeze_above.unwrap_or(f64::INFINITY),
            min_count: options.min_count,
            ignore_index: options.ignore_index,
            initial: initial as i32,
            empty_class: options.empty_class.number(),
            reduction: options.reduction.number(),
            mode: options.mode.number(),
            device_type: if options.device.kind == DeviceKind::Cuda { OLS_DEVICE_CUDA } else { OLS_DEVICE_CPU },
            device_id: options.device.id,
            n_threads: options.threads as i32,
            class_weights: options.class_weights.as_ref().map_or(ols_tensor_t::ABSENT, |w| view(w.as_ptr().cast(), DType::F64, 1)),
            initial_soft_labels: matrix.map_or(ols_tensor_t::ABSENT, |matrix| view(matrix.as_ptr().cast(), DType::F32, 2)),
            ..Self::DEFAULT
        }
    }
}

/// Class weights, f32 or f64. Their values are checked by [`Options::validate`].
///
/// # Safety
/// `weights` describes memory that can be read.
unsafe fn read_weights(weights: &RawTensor, classes: usize) -> Result<Vec<f64>> {
    const NAME: &str = "class_weights";
    if !matches!(weights.dtype, DType::F32 | DType::F64) {
        fail!(InvalidDtype, "{NAME}.dtype = {} is not one of f32, f64", weights.dtype);
    }
    if weights.device != Device::CPU {
        fail!(InvalidDevice, "{NAME}.device = {}, but it is read by the host", weights.device);
    }
    weights.check_shape(NAME, &[classes as i64], "(num_classes)")?;
    weights.check(NAME)?;
    let mut values = try_vec(NAME, classes)?;
    for (class, value) in values.iter_mut().enumerate() {
        let offset = class as isize * weights.strides[0] as isize;
        // SAFETY: the caller's promise; `check` found the address aligned and the strides in range.
        *value = unsafe {
            match weights.dtype {
                DType::F64 => weights.data.cast::<f64>().wrapping_offset(offset).read(),
                _ => f64::from(weights.data.cast::<f32>().wrapping_offset(offset).read()),
            }
        };
    }
    Ok(values)
}

/// Initial soft labels, rounded to f32. Their values are checked by [`Options::validate`].
///
/// # Safety
/// `matrix` describes memory that can be read.
unsafe fn read_initial(matrix: &RawTensor, classes: usize) -> Result<Vec<f32>> {
    const NAME: &str = "initial_soft_labels";
    // SAFETY: the caller's promise.
    let read = unsafe { read_matrix(NAME, matrix, classes, Device::CPU)? };
    let mut values = try_vec(NAME, classes * classes)?;
    values.iter_mut().enumerate().for_each(|(index, value)| *value = read(index));
    Ok(values)
}

/// Sets up options with the defaults; `num_classes` is 0 and must be set.
///
/// Call it as `ols_options_init(&options, sizeof options)`. Owns nothing: options need no clean-up. Safe from any thread. On failure (`options` is
/// NULL, or `struct_size` is no size of the struct) nothing is written.
///
/// # Safety
/// `options` is NULL or points to `struct_size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_options_init(options: *mut ols_options_t, struct_size: usize) -> ols_status_t {
    boundary("ols_options_init", || {
        // SAFETY: the caller's promise.
        let options = unsafe { OutputStruct::uninitialised("options", options, struct_size)? };
        options.write(ols_options_t::DEFAULT);
        Ok(())
    })
}

/// Sets `initial`, `smoothing` and `empty_class` of initialised options to what `preset`, an `ols_preset_t`, names; leaves the others.
///
/// Owns nothing. Safe from any thread. On failure `*options` is as before.
///
/// # Safety
/// `options` is NULL or points to a writable, initialised `ols_options_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_options_preset(options: *mut ols_options_t, preset: i32) -> ols_status_t {
    boundary("ols_options_preset", || {
        // SAFETY: the caller's promise.
        let (mut given, output) = unsafe { (read_struct("options", options)?, OutputStruct::new("options", options)?) };
        let named = ols_options_t::from_core(&Options::new(2).preset(Preset::from_number("preset", preset)?));
        (given.initial, given.smoothing, given.empty_class) = (named.initial, named.smoothing, named.empty_class);
        output.write(given);
        Ok(())
    })
}

/// Writes the options of a criterion to `*out`, as they are now: `alpha` and `mode` as set last, and what a load replaced.
///
/// `class_weights` (f64) and `initial_soft_labels` (f32) are views of the criterion's copies: read-only, until its next load or its end. The
/// tensors of the state and `flags` are left out, so that `*out` can create another criterion with a state of its own. Safe from any thread. On
/// failure `*out` is as before. Set `out->struct_size` before.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_options_t` whose `struct_size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_get_options(criterion: *const ols_criterion_t, out: *mut ols_options_t) -> ols_status_t {
    boundary("ols_get_options", || {
        // SAFETY: the caller's promise.
        let (criterion, out) = unsafe { (lock(criterion)?, OutputStruct::new("out", out)?) };
        out.write(ols_options_t::from_core(criterion.options()));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_core() {
        let ours = ols_options_t { num_classes: 7, ..ols_options_t::DEFAULT };
        let nowhere = Region::bytes("out", std::ptr::null(), 0);
        // SAFETY: no tensor is given.
        let CreationOptions { options, .. } = unsafe { ours.to_core(&raw const ours, &nowhere) }.unwrap();
        assert_eq!(options, Options::new(7));
    }

    #[test]
    fn numbers_of_the_enums_are_their_positions() {
        assert_eq!(EmptyClass::Zero.number(), ols_empty_class_t::OLS_EMPTY_CLASS_ZERO as i32);
        assert_eq!(EmptyClass::OneHot.number(), ols_empty_class_t::OLS_EMPTY_CLASS_ONE_HOT as i32);
        assert_eq!(Reduction::Sum.number(), ols_reduction_t::OLS_REDUCTION_SUM as i32);
        assert_eq!(Mode::Eval.number(), ols_mode_t::OLS_MODE_EVAL as i32);
        assert_eq!(Preset::Paper.number(), ols_preset_t::OLS_PRESET_PAPER as i32);
        assert!(Mode::from_number("mode", -1).is_err() && Mode::from_number("mode", 2).is_err());
    }
}
