//! Between the options of a C caller and those of the core. Nothing here is in the header.

use super::super::args::{Growing, Region};
use super::super::tensor::{OLS_DEVICE_CPU, OLS_DEVICE_CUDA, device, ols_tensor_t};
use super::{OLS_OPTIONS_ADOPT_STATE, ols_initial_t, ols_options_t};
use crate::criterion::read_matrix;
use crate::cuda::check_host_memory;
use crate::error::{Result, fail};
use crate::options::{EmptyClass, Initial, Mode, Options, Preset, Reduction};
use crate::state::{StateMemory, try_vec};
use crate::tensor::{DType, Device, DeviceKind, RawTensor};

/// A C enum's values beside the core's.
pub(super) trait Enumerated: Copy + PartialEq + 'static {
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
pub(in super::super) fn mode_from_number(number: i32) -> Result<Mode> {
    Mode::from_number("mode", number)
}

/// The number of a mode.
pub(in super::super) fn number_of_mode(mode: Mode) -> i32 {
    mode.number()
}

/// What `ols_create` hands to the core.
pub(in super::super) struct CreationOptions {
    pub options: Options,
    pub memory: StateMemory,
}

impl ols_options_t {
    /// The options as the core takes them. `at` is the address that they were read from, `out` the memory that will be written.
    ///
    /// # Safety
    /// The tensors of class weights and initial soft labels can be read.
    pub(in super::super) unsafe fn to_core(self, at: *const Self, out: &Region<'_>) -> Result<CreationOptions> {
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
    pub(super) fn from_core(options: &Options) -> Self {
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

#[cfg(test)]
mod tests {
    use super::super::{ols_empty_class_t, ols_mode_t, ols_preset_t, ols_reduction_t};
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
