//! What a file contains: the metadata, the list of tensors, the checksum over both.

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::FORMAT;
use crate::error::{Error, ErrorKind, Result, fail};
use crate::options::{EmptyClass, Initial, Options};
use crate::statistics::COUNTERS;

/// What stands in the place of the checksum while it is computed.
pub(super) const NO_CHECKSUM: &str = "00000000";

/// What the file says beside its tensors.
#[derive(Serialize, Deserialize)]
pub(super) struct Metadata {
    pub format: u32,
    pub version: String,
    pub checksum: String,
    pub num_classes: usize,
    pub epoch: i64,
    pub alpha: f64,
    pub initial: Start,
    pub empty_class: Policy,
    pub min_count: i64,
    pub momentum: f64,
    pub freeze_above: Option<f64>,
    pub ignore_index: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    Smoothing(f64),
    Uniform,
    Zero,
    OneHot,
    Matrix,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", remote = "EmptyClass")]
enum PolicyNames {
    Keep,
    Uniform,
    Initial,
    OneHot,
    Zero,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Policy(#[serde(with = "PolicyNames")] pub EmptyClass);

/// The tensors of the file, in the order of their names.
pub(super) fn shapes(options: &Options) -> Vec<(&'static str, Dtype, Vec<usize>)> {
    let classes = options.classes;
    let mut shapes = vec![
        ("counters", Dtype::I64, vec![COUNTERS]),
        ("counts", Dtype::I64, vec![classes]),
        ("soft_labels", Dtype::F32, vec![classes, classes]),
        ("sums", Dtype::I64, vec![classes, classes]),
    ];
    if options.class_weights.is_some() {
        shapes.push(("class_weights", Dtype::F64, vec![classes]));
    }
    if matches!(options.initial, Initial::Matrix(_)) {
        shapes.push(("initial_soft_labels", Dtype::F32, vec![classes, classes]));
    }
    shapes.sort_unstable_by_key(|(name, ..)| *name);
    shapes
}

/// What the file says beside its tensors, without a checksum.
pub(super) fn metadata(options: &Options, epoch: i64) -> Metadata {
    Metadata {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        checksum: NO_CHECKSUM.into(),
        num_classes: options.classes,
        epoch,
        alpha: options.alpha,
        initial: match options.initial {
            Initial::Smoothing(eps) => Start::Smoothing(eps),
            Initial::Uniform => Start::Uniform,
            Initial::Zero => Start::Zero,
            Initial::OneHot => Start::OneHot,
            Initial::Matrix(_) => Start::Matrix,
        },
        empty_class: Policy(options.empty_class),
        min_count: options.min_count,
        momentum: options.momentum,
        freeze_above: options.freeze_above.filter(|threshold| threshold.is_finite()),
        ignore_index: options.ignore_index,
    }
}

pub(super) fn text(metadata: &Metadata) -> Result<String> {
    serde_json::to_string(metadata).map_err(|error| Error::new(ErrorKind::Io, format!("metadata: {error}")))
}

/// The rule for A, c and the counters.
pub(super) fn check_not_negative(name: &str, values: impl Iterator<Item = i64>) -> Result<()> {
    match values.enumerate().find(|(_, value)| *value < 0) {
        Some((index, value)) => fail!(InvalidArgument, "element {index} of {name} is negative: {value}"),
        None => Ok(()),
    }
}

/// Eight hexadecimal digits.
pub(super) fn checksum<'a>(metadata: &str, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut crc = crc32fast::Hasher::new();
    crc.update(metadata.as_bytes());
    for (name, bytes) in tensors {
        crc.update(name.as_bytes());
        crc.update(bytes);
    }
    format!("{:08x}", crc.finalize())
}
