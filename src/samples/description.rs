//! The rules for the description of a batch: shapes, dtypes, devices and overlaps. Reads no element.

use std::fmt;

use super::{PerSample, Rows, Samples};
use crate::batch::RawBatch;
use crate::error::{Result, fail};
use crate::options::{Options, Reduction};
use crate::state::State;
use crate::tensor::{Bytes, DType, RawTensor, Sizes};

const TARGETS: &[DType] = &[DType::I64, DType::I32, DType::U8];
const REALS: &[DType] = &[DType::F32, DType::F64];
/// The most inputs that a batch has.
const INPUTS: usize = 6;

/// What is known of a batch while its tensors are checked one after the other.
struct Description<'a> {
    options: &'a Options,
    state: &'a State,
    logits: &'a RawTensor,
    /// Sizes of one index per sample: (N), or (N, inner).
    shape: [i64; 2],
    /// Names and bytes of the inputs so far; those that are given.
    inputs: [Option<(&'static str, Bytes)>; INPUTS],
    given: usize,
}

impl<'a> Description<'a> {
    /// Checks the logits, with which all else is compared.
    fn new(options: &'a Options, state: &'a State, logits: &'a RawTensor) -> Result<Self> {
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
        let bytes = logits.check("logits")?;
        let mut this = Self { options, state, logits, shape: [logits.shape[0], logits.shape[2]], inputs: Default::default(), given: 0 };
        this.add("logits", bytes);
        Ok(this)
    }

    fn add(&mut self, name: &'static str, bytes: Bytes) {
        self.inputs[self.given] = Some((name, bytes));
        self.given += 1;
    }

    /// The shape of one value per sample.
    fn shape(&self) -> &[i64] {
        &self.shape[..self.logits.ndim - 1]
    }

    /// What messages call it.
    fn shape_name(&self) -> &'static str {
        if self.logits.ndim == 2 { "the logits' (N)" } else { "the logits' (N, inner)" }
    }

    /// Whether the loss has a value per sample.
    fn is_per_sample(&self) -> bool {
        self.options.reduction == Reduction::None
    }

    /// The number of samples.
    fn count(&self) -> Result<usize> {
        let count = self.shape().iter().try_fold(1i64, |product, &size| product.checked_mul(size));
        let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
            fail!(InvalidShape, "logits.shape = {} has more samples than fit into the address space", Sizes(self.logits.sizes()));
        };
        Ok(count)
    }

    /// Checks an input with a value per sample or, if `or_one`, perhaps one for all.
    fn input(&mut self, name: &'static str, tensor: &RawTensor, or_one: bool, dtypes: &[DType]) -> Result<PerSample> {
        if !dtypes.contains(&tensor.dtype) {
            fail!(InvalidDtype, "{name}.dtype = {} is not one of {}", tensor.dtype, Names(dtypes));
        }
        check_device(self.options, name, tensor)?;
        let one = or_one && tensor.is_one_value();
        if !one {
            tensor.check_shape(name, self.shape(), self.shape_name())?;
        }
        let bytes = tensor.check(name)?;
        self.add(name, bytes);
        Ok(if one { PerSample::one(tensor) } else { PerSample::new(tensor) })
    }

    fn optional(&mut self, name: &'static str, tensor: &Option<RawTensor>, or_one: bool, dtypes: &[DType]) -> Result<Option<PerSample>> {
        tensor.as_ref().map(|tensor| self.input(name, tensor, or_one, dtypes)).transpose()
    }

    fn inputs(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        self.inputs.iter().flatten().map(|(name, bytes)| (*name, bytes))
    }

    /// Checks that no input is part of what the call may write in the criterion.
    fn check_inputs_apart_from_statistics(&self) -> Result<()> {
        let statistics = &self.state.bytes()[1..];
        for (name, bytes) in self.inputs() {
            if statistics.iter().any(|own| own.overlap(bytes)) {
                fail!(InvalidArgument, "{name} overlaps the criterion's statistics, which this call may write");
            }
        }
        Ok(())
    }

    /// Checks an output, when all inputs are known; the gradient may take the place of the logits.
    fn check_output(&self, name: &str, tensor: &RawTensor, dtype: DType, expected: &[i64], of: &str) -> Result<()> {
        if tensor.dtype != dtype {
            fail!(InvalidDtype, "{name}.dtype = {}, but {dtype} is required for logits of {}", tensor.dtype, self.logits.dtype);
        }
        check_device(self.options, name, tensor)?;
        tensor.check_shape(name, expected, of)?;
        let own = tensor.check(name)?;
        tensor.check_writable(name)?;
        if self.state.bytes().iter().any(|bytes| bytes.overlap(&own)) {
            fail!(InvalidArgument, "{name} overlaps the criterion's state");
        }
        for (other, bytes) in self.inputs() {
            let in_place = other == "logits" && name == "grad" && tensor.same_view(self.logits);
            if !in_place && bytes.overlap(&own) {
                fail!(InvalidArgument, "{name} overlaps {other}");
            }
        }
        Ok(())
    }

    fn check_outputs(&self, loss: Option<&RawTensor>, grad: Option<&RawTensor>) -> Result<()> {
        let logits = self.logits;
        if let Some(loss) = loss {
            let (expected, of) = match self.is_per_sample() {
                true => (self.shape(), self.shape_name()),
                false => (if loss.is_one_value() { loss.sizes() } else { &[] }, "the shape of a single value"),
            };
            self.check_output("loss", loss, logits.dtype.of_loss(), expected, of)?;
        }
        if let Some(grad) = grad {
            self.check_output("grad", grad, logits.dtype, logits.sizes(), "logits.shape")?;
            if let Some(loss) = loss
                && loss.overlaps(grad)
            {
                fail!(InvalidArgument, "loss overlaps grad");
            }
        }
        Ok(())
    }
}

impl Samples {
    /// Checks shapes, dtypes, devices and overlaps; reads nothing.
    pub fn new(options: &Options, state: &State, batch: &RawBatch, loss: Option<&RawTensor>, grad: Option<&RawTensor>) -> Result<Self> {
        let logits = &batch.logits;
        let mut description = Description::new(options, state, logits)?;
        let count = description.count()?;
        match (&batch.targets2, &batch.lam) {
            (Some(_), None) => fail!(InvalidArgument, "targets2 is given, but lam is not"),
            (None, Some(_)) => fail!(InvalidArgument, "lam is given, but targets2 is not"),
            _ => {}
        }
        let targets = description.input("targets", &batch.targets, false, TARGETS)?;
        let targets2 = description.optional("targets2", &batch.targets2, false, TARGETS)?;
        let weights = description.optional("sample_weights", &batch.sample_weights, false, REALS)?;
        let lam = description.optional("lam", &batch.lam, true, REALS)?;
        if let Some(tensor) = &batch.grad_loss
            && !tensor.is_one_value()
            && !description.is_per_sample()
        {
            fail!(InvalidShape, "grad_loss.shape = {} is not a single value, () or (1), as this reduction requires", Sizes(tensor.sizes()));
        }
        let grad_loss = description.optional("grad_loss", &batch.grad_loss, true, REALS)?;
        description.check_inputs_apart_from_statistics()?;
        description.check_outputs(loss, grad)?;
        Ok(Self {
            count,
            classes: options.classes,
            inner: if logits.ndim == 3 { logits.shape[2] as usize } else { 1 },
            logits: Rows::new(logits),
            grad: grad.map(Rows::new),
            loss: loss.map(PerSample::new),
            targets,
            targets2,
            weights,
            lam,
            grad_loss,
            target_offset: batch.target_offset,
            ignore_index: options.ignore_index,
            images: logits.ndim == 3,
        })
    }
}

fn check_device(options: &Options, name: &str, tensor: &RawTensor) -> Result<()> {
    if tensor.device != options.device {
        fail!(InvalidDevice, "{name}.device = {}, but the criterion is on {}", tensor.device, options.device);
    }
    Ok(())
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
