//! The options of a criterion.

mod convert;

use std::mem::offset_of;

use safer_ffi::prelude::*;

use self::convert::Enumerated;
pub(super) use self::convert::{CreationOptions, mode_from_number, number_of_mode};
use super::args::{Growing, OutputStruct, read_struct};
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::status::ols_status_t;
use super::tensor::{OLS_DEVICE_CPU, ols_tensor_t};
use crate::options::{Options, Preset};

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
