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

/// How the soft labels of the first epoch are initialised.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_initial_t {
    /// `1 - smoothing` for the class itself, `smoothing / (K - 1)` for every other class.
    OLS_INITIAL_SMOOTHING = 0,
    /// 1/K for every class.
    OLS_INITIAL_UNIFORM = 1,
    /// 0 for every class.
    OLS_INITIAL_ZERO = 2,
    /// 1 for the class itself, 0 for every other class.
    OLS_INITIAL_ONE_HOT = 3,
    /// The matrix `initial_soft_labels`.
    OLS_INITIAL_MATRIX = 4,
}

/// Which soft label a class gets at the end of an epoch in which it was not measured.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_empty_class_t {
    /// The class keeps its current row.
    OLS_EMPTY_CLASS_KEEP = 0,
    /// 1/K for every class, as in the authors' code.
    OLS_EMPTY_CLASS_UNIFORM = 1,
    /// The row that the class had in the first epoch.
    OLS_EMPTY_CLASS_INITIAL = 2,
    /// 1 for the class itself, 0 for every other class.
    OLS_EMPTY_CLASS_ONE_HOT = 3,
    /// 0 for every class, as in the PyTorch package: the class then trains on its hard label
    /// alone.
    OLS_EMPTY_CLASS_ZERO = 4,
}

/// How the losses of a batch are reduced. `v` are the sample weights, `w` the class weights.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_reduction_t {
    /// No reduction: `v*loss` for each sample.
    OLS_REDUCTION_NONE = 0,
    /// `sum v*loss / sum v*w[y]` over all samples that are not ignored, as in PyTorch's cross
    /// entropy; 0 if the divisor is 0. With two targets `w[y]` is replaced by `lam*w[y] +
    /// (1-lam)*w[y2]`.
    OLS_REDUCTION_MEAN = 1,
    /// `sum v*loss`.
    OLS_REDUCTION_SUM = 2,
}

/// Whether forward passes update the statistics.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_mode_t {
    /// Forward passes add the predictions of correctly classified samples to the statistics.
    OLS_MODE_TRAIN = 0,
    /// Forward passes change no state.
    OLS_MODE_EVAL = 1,
}

/// Sets of options that reproduce other implementations.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_preset_t {
    /// The PyTorch package: `OLS_INITIAL_SMOOTHING` with 0.1, and `OLS_EMPTY_CLASS_ZERO`.
    OLS_PRESET_REFERENCE = 0,
    /// The authors' released CIFAR code: `OLS_INITIAL_ZERO` and `OLS_EMPTY_CLASS_UNIFORM`.
    OLS_PRESET_PAPER = 1,
}

/// Flag of `ols_options_t`: the memory given as `soft_labels`, `sums`, `counts` and `counters`
/// already holds a state, which is used as it is instead of being initialised.
pub const OLS_OPTIONS_ADOPT_STATE: u32 = 1;

/// The options of a criterion. Initialise the struct with `ols_options_init`, set `num_classes`,
/// then change whatever should differ from the defaults.
///
/// The state of a criterion may be kept in memory of the caller, given as `soft_labels`, `sums`,
/// `counts` and `counters`; the library allocates whatever is not given. Rows must be contiguous,
/// but may be more than K elements apart, and the blocks must not overlap. The caller may read and
/// modify this memory between calls. This serves three purposes: state in the tensors of a
/// framework, which then saves and transfers them itself; state in memory shared between processes;
/// state that outlives its criterion.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_options_t {
    /// Size of this struct in bytes: `sizeof(ols_options_t)`.
    pub struct_size: usize,
    /// Number of classes K, at least 2. Must be set; there is no default.
    pub num_classes: i64,
    /// Weight of the hard label, in [0, 1]; the soft label has the weight `1 - alpha`. Default:
    /// 0.5.
    pub alpha: f64,
    /// Smoothing of `OLS_INITIAL_SMOOTHING`, in [0, 1]. Default: 0.1.
    pub smoothing: f64,
    /// Fraction of the old soft label that is kept in the new one, in [0, 1). Default: 0.
    pub momentum: f64,
    /// Threshold, greater than 0: a class whose largest soft label is at least this value keeps its
    /// row from then on. Default: INFINITY, that is, never. Note that the default initialisation
    /// puts 0.9 on the diagonal, so that 0.88 would freeze every class from the start.
    pub freeze_above: f64,
    /// Number of samples per epoch from which on a class counts as measured, at least 1.
    /// Default: 1.
    pub min_count: i64,
    /// Samples with this target are ignored. Default: -100.
    pub ignore_index: i64,
    /// Initial soft labels: an `ols_initial_t`. Default: `OLS_INITIAL_SMOOTHING`.
    pub initial: i32,
    /// Policy for classes that were not measured: an `ols_empty_class_t`. Default:
    /// `OLS_EMPTY_CLASS_KEEP`.
    pub empty_class: i32,
    /// Reduction of the loss: an `ols_reduction_t`. Default: `OLS_REDUCTION_MEAN`.
    pub reduction: i32,
    /// Initial mode: an `ols_mode_t`. Default: `OLS_MODE_TRAIN`.
    pub mode: i32,
    /// Device of the criterion: `OLS_DEVICE_CPU` (default) or `OLS_DEVICE_CUDA`.
    pub device_type: i32,
    /// Index of the CUDA device; ignored on the CPU. Default: 0.
    pub device_id: i32,
    /// Maximum number of threads that a call uses, including the calling one. 0 means as many as the
    /// process may run on. Results do not depend on it. Default: 0. Threads are created for the
    /// first batch that is large enough, sleep between calls, and end with the criterion.
    pub n_threads: i32,
    /// 0 or `OLS_OPTIONS_ADOPT_STATE`.
    pub flags: u32,
    /// Class weights w: f32 or f64 of shape (K), finite and >= 0, in host memory; copied. Optional;
    /// the default is 1 for every class.
    pub class_weights: ols_tensor_t,
    /// Initial soft labels: f32 or f64 of shape (K, K), one row per class, finite and >= 0 as f32,
    /// in host memory; copied. To be given with `OLS_INITIAL_MATRIX`, and only then.
    pub initial_soft_labels: ols_tensor_t,
    /// Memory for the soft labels S: f32 of shape (K, K). Optional.
    pub soft_labels: ols_tensor_t,
    /// Memory for the sums A: i64 of shape (K, K). Optional.
    pub sums: ols_tensor_t,
    /// Memory for the counts c: i64 of shape (K). Optional.
    pub counts: ols_tensor_t,
    /// Memory for the counters: i64 of shape (`OLS_COUNTERS`). Optional.
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
            fail!(InvalidArgument, "options.flags has OLS_OPTIONS_ADOPT_STATE, but no state memory is given");
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
        fail!(InvalidDevice, "{NAME}.device = {}, but it must be in host memory", weights.device);
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

/// Initialises options with their default values. `num_classes` is set to 0 and must be filled in.
///
/// Call it as `ols_options_init(&options, sizeof options)`. Options own no memory and need no
/// cleanup. Safe to call from any thread. On failure (`options` is NULL, or `struct_size` is not a
/// size that this struct can have) nothing is written.
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

/// Applies a preset, an `ols_preset_t`: sets `initial`, `smoothing` and `empty_class`, and leaves
/// all other options unchanged.
///
/// No ownership is transferred. Safe to call from any thread. On failure `*options` is unchanged.
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

/// Retrieves the current options of a criterion, including changes made by `ols_set_alpha`,
/// `ols_set_mode` and by loading a state.
///
/// `class_weights` (f64) and `initial_soft_labels` (f32) are read-only views of the criterion's own
/// copies; they are valid until a state is loaded into the criterion or it is destroyed. The tensors
/// of the state and `flags` are left empty, so that `*out` can be passed to `ols_create` to create
/// another criterion with a state of its own. Safe to call from any thread. On failure `*out` is
/// unchanged. Set `out->struct_size` before the call.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
/// `ols_options_t` whose `struct_size` is set.
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
