//! The options of a criterion: defaults, presets, validation.

use crate::error::{Result, fail};
use crate::state::try_copy;
use crate::tensor::Device;

/// How the losses of a batch are reduced; see [`mod@crate::reference`] for the formulas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// No reduction: one loss per sample, multiplied by its sample weight.
    None,
    /// `sum v*loss / sum v*w[y]` over all samples that are not ignored, as in `torch.nn.CrossEntropyLoss`; 0 if the divisor is 0.
    #[default]
    Mean,
    /// `sum v*loss`.
    Sum,
}

/// Whether forward passes update the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Forward passes add the predictions of correctly classified samples to the statistics.
    #[default]
    Train,
    /// Forward passes change no state.
    Eval,
}

/// Which soft label a class gets at the end of an epoch in which it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EmptyClass {
    /// The class keeps its current row.
    #[default]
    Keep,
    /// `1/K` for every class, as in the authors' code.
    Uniform,
    /// The row that the class had in the first epoch.
    Initial,
    /// 1 for the class itself, 0 elsewhere.
    OneHot,
    /// 0 for every class, as in the PyTorch package: the class then trains on its hard label alone.
    Zero,
}

/// How the soft labels of the first epoch are initialised.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Initial {
    /// `1 - eps` for the class itself, `eps / (K - 1)` for every other class.
    Smoothing(f64),
    /// `1/K` for every class.
    Uniform,
    /// 0 for every class.
    Zero,
    /// 1 for the class itself, 0 elsewhere.
    OneHot,
    /// K x K soft labels, row-major, one row per class; finite and not negative. Rows need not sum to 1.
    Matrix(Vec<f32>),
}

impl Default for Initial {
    fn default() -> Self {
        Self::Smoothing(Options::DEFAULT_SMOOTHING)
    }
}

/// Sets of options that reproduce other implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// The PyTorch package: `smoothing` as the initial soft labels, a row of zeros for absent classes.
    Reference,
    /// The authors' released CIFAR code: zeros as the initial soft labels, a uniform row for absent classes.
    Paper,
}

/// The options of a criterion.
///
/// ```
/// use ols::{EmptyClass, Options};
/// let options = Options::new(10).alpha(0.3).empty_class(EmptyClass::Uniform).momentum(0.5);
/// assert_eq!(options.classes, 10);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Options {
    /// Number of classes K, at least 2.
    pub classes: usize,
    /// Weight of the hard label, in [0, 1]; the soft label has the weight `1 - alpha`. Default: 0.5.
    pub alpha: f64,
    /// Initial soft labels. Default: `Smoothing(0.1)`.
    pub initial: Initial,
    /// Policy for classes that were not measured in an epoch. Default: `Keep`.
    pub empty_class: EmptyClass,
    /// Number of samples per epoch from which on a class counts as measured, at least 1. Default: 1.
    pub min_count: i64,
    /// Fraction of the old soft label that is kept in the new one, in [0, 1). Default: 0.
    pub momentum: f64,
    /// A class whose largest soft label is at least this value keeps its row from then on. Default: never.
    pub freeze_above: Option<f64>,
    /// K class weights, finite and not negative. Default: 1 for every class.
    pub class_weights: Option<Vec<f64>>,
    /// Samples with this target are ignored. Default: -100.
    pub ignore_index: i64,
    /// Reduction of the loss. Default: `Mean`.
    pub reduction: Reduction,
    /// Initial mode. Default: `Train`.
    pub mode: Mode,
    /// Device of the criterion and of the tensors of its calls. Default: the CPU.
    pub device: Device,
    /// Maximum number of threads that a call uses, including the calling one; 0 means as many as the process may run on. Default: 0.
    pub threads: usize,
}

impl Options {
    /// The default smoothing of the initial soft labels.
    pub const DEFAULT_SMOOTHING: f64 = 0.1;
    /// The largest valid value of [`threads`](Self::threads).
    pub const MAX_THREADS: usize = 1 << 16;

    /// Creates options with default values for `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            alpha: 0.5,
            initial: Initial::default(),
            empty_class: EmptyClass::default(),
            min_count: 1,
            momentum: 0.0,
            freeze_above: None,
            class_weights: None,
            ignore_index: -100,
            reduction: Reduction::default(),
            mode: Mode::default(),
            device: Device::CPU,
            threads: 0,
        }
    }

    /// Applies a preset: sets the initial soft labels and the policy for empty classes.
    pub fn preset(mut self, preset: Preset) -> Self {
        (self.initial, self.empty_class) = match preset {
            Preset::Reference => (Initial::default(), EmptyClass::Zero),
            Preset::Paper => (Initial::Zero, EmptyClass::Uniform),
        };
        self
    }

    /// Sets [`alpha`](Self::alpha).
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets [`initial`](Self::initial).
    pub fn initial(mut self, initial: Initial) -> Self {
        self.initial = initial;
        self
    }

    /// Sets [`empty_class`](Self::empty_class).
    pub fn empty_class(mut self, policy: EmptyClass) -> Self {
        self.empty_class = policy;
        self
    }

    /// Sets [`min_count`](Self::min_count).
    pub fn min_count(mut self, min_count: i64) -> Self {
        self.min_count = min_count;
        self
    }

    /// Sets [`momentum`](Self::momentum).
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Sets [`freeze_above`](Self::freeze_above).
    ///
    /// Note that the default `Smoothing(0.1)` puts 0.9 on the diagonal, so that a threshold of 0.88 freezes every class from the start.
    pub fn freeze_above(mut self, threshold: impl Into<Option<f64>>) -> Self {
        self.freeze_above = threshold.into();
        self
    }

    /// Sets [`class_weights`](Self::class_weights).
    pub fn class_weights(mut self, weights: impl Into<Option<Vec<f64>>>) -> Self {
        self.class_weights = weights.into();
        self
    }

    /// Sets [`ignore_index`](Self::ignore_index).
    pub fn ignore_index(mut self, ignore_index: i64) -> Self {
        self.ignore_index = ignore_index;
        self
    }

    /// Sets [`reduction`](Self::reduction).
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// Sets [`mode`](Self::mode).
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets [`device`](Self::device).
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Sets [`threads`](Self::threads).
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// A copy without what takes memory: class weights and an initial matrix.
    pub(crate) fn without_tensors(&self) -> Self {
        Self { initial: Initial::default(), class_weights: None, ..*self }
    }

    /// A copy, or the error that memory is short.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let initial = match &self.initial {
            Initial::Smoothing(eps) => Initial::Smoothing(*eps),
            Initial::Uniform => Initial::Uniform,
            Initial::Zero => Initial::Zero,
            Initial::OneHot => Initial::OneHot,
            Initial::Matrix(matrix) => Initial::Matrix(try_copy("initial_soft_labels", matrix)?),
        };
        let class_weights = self.class_weights.as_deref().map(|weights| try_copy("class_weights", weights)).transpose()?;
        Ok(Self { initial, class_weights, ..*self })
    }

    /// Checks every option.
    ///
    /// # Errors
    /// The first option that violates its rule; the message names it.
    pub fn validate(&self) -> Result<()> {
        let classes = self.classes;
        if !(2..=i32::MAX as usize).contains(&classes) {
            fail!(InvalidArgument, "num_classes = {classes} is outside [2, {}]", i32::MAX);
        }
        validate_alpha(self.alpha)?;
        if self.min_count < 1 {
            fail!(InvalidArgument, "min_count = {} is less than 1", self.min_count);
        }
        if !(0.0..1.0).contains(&self.momentum) {
            fail!(InvalidArgument, "momentum = {} is outside [0, 1)", self.momentum);
        }
        if let Some(threshold) = self.freeze_above
            && (threshold.is_nan() || threshold <= 0.0)
        {
            fail!(InvalidArgument, "freeze_above = {threshold} is not greater than 0");
        }
        if self.threads > Self::MAX_THREADS {
            fail!(InvalidArgument, "n_threads = {} is outside [0, {}]", self.threads, Self::MAX_THREADS);
        }
        if let Some(weights) = &self.class_weights {
            if weights.len() != classes {
                fail!(InvalidShape, "class_weights has {} elements, but there are {classes} classes", weights.len());
            }
            for (class, &weight) in weights.iter().enumerate() {
                if !is_finite_and_not_negative(weight) {
                    fail!(InvalidArgument, "class_weights[{class}] = {weight} is not a finite number >= 0");
                }
            }
        }
        match &self.initial {
            Initial::Smoothing(eps) if !(0.0..=1.0).contains(eps) => {
                fail!(InvalidArgument, "smoothing = {eps} is outside [0, 1]")
            }
            Initial::Matrix(matrix) => {
                if Some(matrix.len()) != classes.checked_mul(classes) {
                    let found = matrix.len();
                    fail!(InvalidShape, "initial_soft_labels has {found} elements, but {classes} x {classes} are needed");
                }
                validate_soft_labels("initial_soft_labels", classes, matrix.iter().map(|&value| f64::from(value)))
            }
            _ => Ok(()),
        }
    }
}

/// Checks the weight of the hard label.
pub(crate) fn validate_alpha(alpha: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&alpha) {
        fail!(InvalidArgument, "alpha = {alpha} is outside [0, 1]");
    }
    Ok(())
}

/// Checks soft labels that a caller gives, in row-major order; `name` is what the message calls them.
pub(crate) fn validate_soft_labels(name: &str, classes: usize, values: impl Iterator<Item = f64>) -> Result<()> {
    for (index, value) in values.enumerate() {
        if !is_finite_and_not_negative(value) {
            let (row, column) = (index / classes, index % classes);
            fail!(InvalidArgument, "{name}[{row}, {column}] = {value} is not a finite number >= 0");
        }
    }
    Ok(())
}

/// A power of two to divide class weights by, so that the largest is in [1, 2), or the smallest normal number: divided, all fit a narrower type.
pub(crate) fn scale_of_weights(weights: &[f64]) -> f64 {
    let largest = weights.iter().copied().fold(0.0, f64::max);
    f64::from_bits(largest.to_bits() & f64::INFINITY.to_bits()).max(f64::MIN_POSITIVE)
}

/// The rule for weights and soft labels.
pub(crate) fn is_finite_and_not_negative(value: f64) -> bool {
    (0.0..f64::INFINITY).contains(&value)
}
