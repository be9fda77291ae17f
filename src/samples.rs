//! A batch that was checked: every rule about shapes, dtypes, devices, overlaps and values holds, and each sample can be read.
#![allow(unsafe_code, reason = "elements are read through the caller's addresses, after all checks")]

use std::fmt;

use crate::batch::RawBatch;
use crate::error::{Result, fail};
use crate::options::{Options, Reduction};
use crate::state::State;
use crate::tensor::{Bytes, DType, RawTensor, Sizes};

/// Samples whose sums are added up one after the other; the sums of blocks are added in the order of the blocks. Part of the definition of the
/// loss's bits, whatever the number of threads.
pub(crate) const BLOCK: usize = 64;

/// A sample that takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The class of the first target.
    pub first: usize,
    /// The class of the second target; the first one's where there is none.
    pub second: usize,
    /// Weight of the first target; `1 - lam` is the second one's.
    pub lam: f64,
    /// The sample weight v.
    pub weight: f64,
}

impl Sample {
    /// The class that the statistics mean: that of the larger lam, the first at 0.5.
    pub fn class(&self) -> usize {
        if self.lam >= 0.5 { self.first } else { self.second }
    }

    /// `w[y]` in the mean's divisor.
    pub fn class_weight(&self, weights: Option<&[f64]>) -> f64 {
        weights.map_or(1.0, |w| self.lam * w[self.first] + (1.0 - self.lam) * w[self.second])
    }
}

/// One value per sample, or the same for all, at any strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerSample {
    pub data: *mut u8,
    pub dtype: DType,
    pub strides: [i64; 2],
}

impl PerSample {
    fn new(tensor: &RawTensor) -> Self {
        Self { data: tensor.data, dtype: tensor.dtype, strides: [tensor.strides[0], tensor.strides[1]] }
    }

    /// The same value for every sample.
    fn one(tensor: &RawTensor) -> Self {
        Self { strides: [0, 0], ..Self::new(tensor) }
    }

    /// The address of a sample's value.
    #[inline]
    fn at(&self, place: Place) -> *mut u8 {
        let elements = place.outer as i64 * self.strides[0] + place.inner as i64 * self.strides[1];
        self.data.wrapping_offset((elements * self.dtype.size() as i64) as isize)
    }

    /// # Safety
    /// The tensor was checked, has an element for the place, and may be read.
    #[inline]
    unsafe fn integer(&self, place: Place) -> i64 {
        let address = self.at(place);
        // SAFETY: the caller's promise; `check` found the address aligned.
        unsafe {
            match self.dtype {
                DType::I64 => address.cast::<i64>().read(),
                DType::I32 => i64::from(address.cast::<i32>().read()),
                _ => i64::from(address.read()),
            }
        }
    }

    /// The values of samples that follow `first`, as many as `to` has room for.
    ///
    /// # Safety
    /// As [`integer`](Self::integer), for each of them.
    #[inline]
    unsafe fn integers(&self, first: Place, along_inner: bool, to: &mut [i64]) {
        let (start, stride) = (self.at(first), self.strides[usize::from(along_inner)] as isize);
        macro_rules! read {
            ($integer:ty) => {{
                let start = start.cast::<$integer>();
                if stride == 1 {
                    // SAFETY: the caller's promise, for values that lie side by side; `check` found the address aligned.
                    let from = unsafe { std::slice::from_raw_parts(start, to.len()) };
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from.into());
                } else {
                    for (index, to) in to.iter_mut().enumerate() {
                        // SAFETY: as above.
                        *to = unsafe { start.wrapping_offset(index as isize * stride).read() }.into();
                    }
                }
            }};
        }
        match self.dtype {
            DType::I64 => read!(i64),
            DType::I32 => read!(i32),
            _ => read!(u8),
        }
    }

    /// # Safety
    /// As [`integer`](Self::integer).
    #[inline]
    pub unsafe fn real(&self, place: Place) -> f64 {
        let address = self.at(place);
        // SAFETY: as in `integer`.
        unsafe {
            match self.dtype {
                DType::F64 => address.cast::<f64>().read(),
                _ => f64::from(address.cast::<f32>().read()),
            }
        }
    }

    /// # Safety
    /// As [`integer`](Self::integer), and the element may be written.
    pub unsafe fn write(&self, place: Place, value: f64) {
        let address = self.at(place);
        // SAFETY: the caller's promise; `check` found the address aligned.
        unsafe {
            match self.dtype {
                DType::F64 => address.cast::<f64>().write(value),
                _ => address.cast::<f32>().write(value as f32),
            }
        }
    }
}

/// Where a sample is: its first index, and the one behind the classes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub outer: usize,
    pub inner: usize,
}

/// A row of logits, or of gradients, per sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub data: *mut u8,
    pub dtype: DType,
    /// Elements from one outer index to the next.
    pub outer: i64,
    /// Elements from one class to the next.
    pub class: i64,
    /// Elements from one sample to the next with the same outer index.
    pub inner: i64,
}

impl Rows {
    fn new(tensor: &RawTensor) -> Self {
        let [outer, class, inner] = tensor.strides;
        Self { data: tensor.data, dtype: tensor.dtype, outer, class, inner }
    }

    /// The address of a sample's class 0.
    #[inline]
    pub fn at(&self, place: Place) -> *mut u8 {
        let elements = place.outer as i64 * self.outer + place.inner as i64 * self.inner;
        self.data.wrapping_offset((elements * self.dtype.size() as i64) as isize)
    }
}

/// A checked batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Samples {
    /// Samples in all.
    pub count: usize,
    pub classes: usize,
    /// Samples that share an outer index: 1 but for (N, K, inner).
    pub inner: usize,
    pub logits: Rows,
    pub grad: Option<Rows>,
    pub loss: Option<PerSample>,
    pub targets: PerSample,
    pub targets2: Option<PerSample>,
    pub weights: Option<PerSample>,
    pub lam: Option<PerSample>,
    pub grad_loss: Option<PerSample>,
    pub target_offset: i64,
    pub ignore_index: i64,
    /// Whether targets have two indices in messages.
    images: bool,
}

impl Samples {
    /// Checks shapes, dtypes, devices and overlaps; reads nothing.
    pub fn new(options: &Options, state: &State, batch: &RawBatch, loss: Option<&RawTensor>, grad: Option<&RawTensor>) -> Result<Self> {
        let logits = &batch.logits;
        if !logits.dtype.is_float() {
            fail!(InvalidDtype, "logits.dtype = {} is not one of f32, f64, f16, bf16", logits.dtype);
        }
        check_device(options, "logits", logits)?;
        if logits.ndim != 2 && logits.ndim != 3 {
            fail!(InvalidShape, "logits.ndim = {} is neither 2, for (N, K), nor 3, for (N, K, inner)", logits.ndim);
        }
        if logits.shape[1] != options.classes as i64 {
            fail!(InvalidShape, "logits.shape[1] = {} differs from num_classes = {}", logits.shape[1], options.classes);
        }
        let logits_bytes = logits.check("logits")?;
        // One index per sample: (N), or (N, inner).
        let (shape, of) = if logits.ndim == 2 {
            (vec2(logits.shape[0], 1), "the logits' (N)")
        } else {
            (vec2(logits.shape[0], logits.shape[2]), "the logits' (N, inner)")
        };
        let shape = &shape[..logits.ndim - 1];
        let Some(count) =
            shape.iter().try_fold(1i64, |product, &size| product.checked_mul(size)).and_then(|count| usize::try_from(count).ok())
        else {
            fail!(InvalidShape, "logits.shape = {} has more samples than fit into the address space", Sizes(logits.sizes()));
        };
        let per_sample = |name: &str, tensor: &RawTensor, scalar: bool, dtypes: &[DType]| -> Result<(PerSample, Bytes)> {
            if !dtypes.contains(&tensor.dtype) {
                fail!(InvalidDtype, "{name}.dtype = {} is not one of {}", tensor.dtype, Names(dtypes));
            }
            check_device(options, name, tensor)?;
            let one = scalar && tensor.is_one_value();
            if !one {
                tensor.check_shape(name, shape, of)?;
            }
            let bytes = tensor.check(name)?;
            Ok((if one { PerSample::one(tensor) } else { PerSample::new(tensor) }, bytes))
        };
        match (&batch.targets2, &batch.lam) {
            (Some(_), None) => fail!(InvalidArgument, "targets2 is given, but lam is not"),
            (None, Some(_)) => fail!(InvalidArgument, "lam is given, but targets2 is not"),
            _ => {}
        }
        let targets = per_sample("targets", &batch.targets, false, TARGETS)?;
        let targets2 = batch.targets2.as_ref().map(|tensor| per_sample("targets2", tensor, false, TARGETS)).transpose()?;
        let weights = batch.sample_weights.as_ref().map(|tensor| per_sample("sample_weights", tensor, false, REALS)).transpose()?;
        let lam = batch.lam.as_ref().map(|tensor| per_sample("lam", tensor, true, REALS)).transpose()?;
        let each = options.reduction == Reduction::None;
        if let Some(tensor) = &batch.grad_loss
            && !tensor.is_one_value()
            && !each
        {
            fail!(InvalidShape, "grad_loss.shape = {} is not a single value, () or (1), as this reduction requires", Sizes(tensor.sizes()));
        }
        let grad_loss = batch.grad_loss.as_ref().map(|tensor| per_sample("grad_loss", tensor, true, REALS)).transpose()?;

        let bytes_of = |input: &Option<(PerSample, Bytes)>| input.as_ref().map(|(_, bytes)| bytes.clone());
        let inputs = [
            ("logits", Some(logits_bytes)),
            ("targets", Some(targets.1.clone())),
            ("targets2", bytes_of(&targets2)),
            ("sample_weights", bytes_of(&weights)),
            ("lam", bytes_of(&lam)),
            ("grad_loss", bytes_of(&grad_loss)),
        ];
        let inputs = || inputs.iter().filter_map(|(name, bytes)| bytes.as_ref().map(|bytes| (*name, bytes)));
        let state_bytes = state.bytes();
        for (name, bytes) in inputs() {
            if state_bytes[1..].iter().any(|own| own.overlap(bytes)) {
                fail!(InvalidArgument, "{name} overlaps the criterion's statistics, which this call may write");
            }
        }
        let check_output = |name: &str, tensor: &RawTensor, dtype: DType, expected: &[i64], of: &str| -> Result<()> {
            if tensor.dtype != dtype {
                fail!(InvalidDtype, "{name}.dtype = {}, but {dtype} is required for logits of {}", tensor.dtype, logits.dtype);
            }
            check_device(options, name, tensor)?;
            tensor.check_shape(name, expected, of)?;
            let own = tensor.check(name)?;
            tensor.check_writable(name)?;
            if state_bytes.iter().any(|bytes| bytes.overlap(&own)) {
                fail!(InvalidArgument, "{name} overlaps the criterion's state");
            }
            for (other, bytes) in inputs() {
                let in_place = other == "logits" && name == "grad" && tensor.same_view(logits);
                if !in_place && bytes.overlap(&own) {
                    fail!(InvalidArgument, "{name} overlaps {other}");
                }
            }
            Ok(())
        };
        if let Some(loss) = loss {
            let (expected, of) = if each { (shape, of) } else { (&[][..], "the shape of a single value") };
            let expected = if !each && loss.is_one_value() { loss.sizes() } else { expected };
            check_output("loss", loss, logits.dtype.of_loss(), expected, of)?;
        }
        if let Some(grad) = grad {
            check_output("grad", grad, logits.dtype, logits.sizes(), "logits.shape")?;
            if let Some(loss) = loss
                && loss.overlaps(grad)
            {
                fail!(InvalidArgument, "loss overlaps grad");
            }
        }
        Ok(Self {
            count,
            classes: options.classes,
            inner: if logits.ndim == 3 { logits.shape[2] as usize } else { 1 },
            logits: Rows::new(logits),
            grad: grad.map(Rows::new),
            loss: loss.map(PerSample::new),
            targets: targets.0,
            targets2: targets2.map(|(targets, _)| targets),
            weights: weights.map(|(weights, _)| weights),
            lam: lam.map(|(lam, _)| lam),
            grad_loss: grad_loss.map(|(grad_loss, _)| grad_loss),
            target_offset: batch.target_offset,
            ignore_index: options.ignore_index,
            images: logits.ndim == 3,
        })
    }

    /// The same batch to read alone.
    pub fn without_outputs(&self) -> Self {
        Self { loss: None, grad: None, ..*self }
    }

    /// Where sample number `index` is.
    #[inline]
    pub fn place(&self, index: usize) -> Place {
        if self.inner == 1 { Place { outer: index, inner: 0 } } else { Place { outer: index / self.inner, inner: index % self.inner } }
    }

    /// The place `count` samples after `first`, with the same outer index where there are inner ones.
    #[inline]
    pub fn after(&self, first: Place, count: usize) -> Place {
        if self.inner == 1 { Place { outer: first.outer + count, ..first } } else { Place { inner: first.inner + count, ..first } }
    }

    /// Whether samples may have two targets.
    pub fn has_second_targets(&self) -> bool {
        self.targets2.is_some()
    }

    /// Whether a sample is its target alone: nothing else differs from one to the next.
    pub fn is_plain(&self) -> bool {
        self.targets2.is_none() && self.weights.is_none() && self.grad_loss.is_none()
    }

    /// Reads the targets of samples that follow `first` (with the same outer index, where there are inner ones), as they are given.
    ///
    /// # Safety
    /// As [`sample`](Self::sample).
    #[inline]
    pub unsafe fn targets_of(&self, first: Place, to: &mut [i64]) {
        // SAFETY: the caller's promise.
        unsafe { self.targets.integers(first, self.inner != 1, to) };
    }

    /// Reads what comes with the logits of a sample; `None` where it takes no part.
    ///
    /// # Safety
    /// The batch's tensors can be read, and [`validate`](Self::validate) found no error.
    #[inline]
    pub unsafe fn sample(&self, place: Place) -> Option<Sample> {
        // SAFETY: the caller's promise; the tensors were checked and have an element for each place.
        unsafe {
            let first = self.targets.integer(place);
            let second = self.targets2.map_or(first, |targets| targets.integer(place));
            let weight = self.weights.map_or(1.0, |weights| weights.real(place));
            if first == self.ignore_index || second == self.ignore_index || weight == 0.0 {
                return None;
            }
            let class = |target: i64| target.wrapping_sub(self.target_offset) as usize;
            Some(Sample { first: class(first), second: class(second), lam: self.lam.map_or(1.0, |lam| lam.real(place)), weight })
        }
    }

    /// Checks every value that comes with the logits, and gives the mean's divisor `sum v*w[y]`.
    ///
    /// # Safety
    /// The batch's tensors can be read.
    pub unsafe fn validate(&self, class_weights: Option<&[f64]>) -> Result<f64> {
        if class_weights.is_none()
            && self.is_plain()
            // SAFETY: the caller's promise.
            && let Some(taking_part) = unsafe { self.count_plain() }
        {
            return Ok(taking_part as f64);
        }
        let mut divisor = 0.0;
        let mut start = 0;
        while start < self.count {
            let mut sum = 0.0;
            for index in start..(start + BLOCK).min(self.count) {
                let place = self.place(index);
                // SAFETY: the caller's promise; `validate_values` found the sample's values in range.
                unsafe {
                    self.validate_values(place)?;
                    if let Some(sample) = self.sample(place) {
                        sum += sample.weight * sample.class_weight(class_weights);
                    }
                }
            }
            divisor += sum;
            start += BLOCK;
        }
        Ok(divisor)
    }

    /// The samples that take part in an [`is_plain`](Self::is_plain) batch; `None` where a target is out of range.
    ///
    /// # Safety
    /// The batch's tensors can be read.
    unsafe fn count_plain(&self) -> Option<usize> {
        let (mut taking_part, mut wrong, mut index) = (0, false, 0);
        while index < self.count {
            let first = self.place(index);
            let neighbours = if self.inner == 1 { BLOCK } else { self.inner - first.inner };
            let count = BLOCK.min(self.count - index).min(neighbours);
            let mut targets = [0i64; BLOCK];
            // SAFETY: the caller's promise.
            unsafe { self.targets.integers(first, self.inner != 1, &mut targets[..count]) };
            for &target in &targets[..count] {
                let ignored = target == self.ignore_index;
                // The comparison rules out differences that wrap around.
                let inside = (target.wrapping_sub(self.target_offset) as u64) < self.classes as u64 && target >= self.target_offset;
                wrong |= !ignored && !inside;
                taking_part += usize::from(!ignored);
            }
            index += count;
        }
        (!wrong).then_some(taking_part)
    }

    /// # Safety
    /// The batch's tensors can be read.
    #[inline]
    unsafe fn validate_values(&self, place: Place) -> Result<()> {
        let at = At { place, images: self.images };
        let check_target = |name: &str, target: i64| -> Result<()> {
            let ignored = target == self.ignore_index;
            if !ignored && !target.checked_sub(self.target_offset).is_some_and(|class| (0..self.classes as i64).contains(&class)) {
                let (low, ignore) = (self.target_offset, self.ignore_index);
                let high = i128::from(low) + self.classes as i128;
                fail!(TargetOutOfRange, "{name}{at} = {target} is outside [{low}, {high}) and is not ignore_index ({ignore})");
            }
            Ok(())
        };
        // SAFETY: the caller's promise; the tensors were checked and have an element for each place.
        unsafe {
            check_target("target", self.targets.integer(place))?;
            if let Some(targets) = self.targets2 {
                check_target("target2", targets.integer(place))?;
            }
            if let Some(weights) = self.weights {
                let weight = weights.real(place);
                if !crate::options::is_finite_and_not_negative(weight) {
                    fail!(InvalidArgument, "sample_weights{at} = {weight} is not a finite number >= 0");
                }
            }
            if let Some(lam) = self.lam {
                let lam = lam.real(place);
                if !(0.0..=1.0).contains(&lam) {
                    fail!(InvalidArgument, "lam{at} = {lam} is outside [0, 1]");
                }
            }
        }
        Ok(())
    }

    /// The error for an entry of `logits` that is no probability.
    pub fn not_a_probability(&self, place: Place, class: usize, value: f64) -> Result<()> {
        let (outer, inner) = (place.outer, place.inner);
        if self.images {
            fail!(InvalidArgument, "logits[{outer}, {class}, {inner}] = {value} is not a probability in [0, 1]");
        }
        fail!(InvalidArgument, "logits[{outer}, {class}] = {value} is not a probability in [0, 1]")
    }
}

const TARGETS: &[DType] = &[DType::I64, DType::I32, DType::U8];
const REALS: &[DType] = &[DType::F32, DType::F64];

fn vec2(a: i64, b: i64) -> [i64; 2] {
    [a, b]
}

fn check_device(options: &Options, name: &str, tensor: &RawTensor) -> Result<()> {
    if tensor.device != options.device {
        fail!(InvalidDevice, "{name}.device = {}, but the criterion is on {}", tensor.device, options.device);
    }
    Ok(())
}

/// Writes `[17]`, or `[3, 17]` for images.
struct At {
    place: Place,
    images: bool,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { outer, inner } = self.place;
        if self.images { write!(f, "[{outer}, {inner}]") } else { write!(f, "[{outer}]") }
    }
}

/// Writes dtypes as `i64, i32, u8`.
struct Names<'a>(&'a [DType]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, dtype) in self.0.iter().enumerate() {
            write!(f, "{}{dtype}", if position > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
