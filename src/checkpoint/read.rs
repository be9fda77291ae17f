//! Reading: what a file says is checked before anything is taken from it.

use std::io;
use std::path::Path;

use bytemuck::{NoUninit, Zeroable};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use super::contents::{Metadata, NO_CHECKSUM, Start, check_not_negative, checksum, shapes};
use super::{FORMAT, METADATA_KEY};
use crate::error::{Error, ErrorKind, Result, fail};
use crate::options::{Initial, Options, validate_soft_labels};
use crate::state::{Matrix, State, try_vec};
use crate::tensor::Element;

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let kind = if error.kind() == io::ErrorKind::OutOfMemory { ErrorKind::OutOfMemory } else { ErrorKind::Io };
        Error::new(kind, format!("{}: cannot be read: {error}", path.display()))
    })
}

/// A file that was checked.
pub(crate) struct Loaded<'a> {
    pub options: Options,
    pub epoch: i64,
    tensors: SafeTensors<'a>,
}

/// Checks the bytes of a file for a criterion with `options`; those that belong to the caller (mode, reduction, device, threads) stay.
pub(crate) fn parse<'a>(bytes: &'a [u8], options: &Options) -> Result<Loaded<'a>> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| not_readable(bytes, &error))?;
    // `deserialize` keeps the metadata to itself; reading the header once more gives it.
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| not_readable(bytes, &error))?;
    let Some(text) = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY)) else {
        fail!(InvalidFile, "foreign file: it is in the safetensors format, but has no metadata entry {METADATA_KEY:?}");
    };
    #[derive(Deserialize)]
    struct Version {
        format: u32,
        version: String,
    }
    let damaged = |error: &dyn std::fmt::Display| Error::new(ErrorKind::InvalidFile, format!("corrupted file: invalid metadata: {error}"));
    let Version { format, version } = serde_json::from_str(text).map_err(|error| damaged(&error))?;
    if format > FORMAT {
        fail!(
            InvalidFile,
            "newer file: its format {format}, written by libols {version}, is newer than {FORMAT}, the latest that this library reads"
        );
    }
    let metadata: Metadata = serde_json::from_str(text).map_err(|error| damaged(&error))?;
    let mut names: Vec<_> = tensors.iter().map(|(name, view)| (name.to_owned(), view.data())).collect();
    names.sort_unstable();
    let stated = format!("\"checksum\":\"{}\"", metadata.checksum);
    let blank = text.replacen(&stated, &format!("\"checksum\":\"{NO_CHECKSUM}\""), 1);
    let found = checksum(&blank, names.iter().map(|(name, data)| (name.as_str(), *data)));
    if found != metadata.checksum {
        fail!(InvalidFile, "corrupted file: the checksum is {found}, but the file states {}", metadata.checksum);
    }
    if metadata.num_classes != options.classes {
        fail!(InvalidArgument, "the file has num_classes = {}, but the criterion has {}", metadata.num_classes, options.classes);
    }
    let classes = options.classes;
    let loaded = Loaded { options: options.without_tensors(), epoch: metadata.epoch, tensors };
    for (name, dtype, shape) in shapes(&loaded.options) {
        loaded.bytes(name, dtype, &shape)?;
    }
    let has = |name: &str| loaded.tensors.tensor(name).is_ok();
    let weights = if has("class_weights") { Some(loaded.vector::<f64>("class_weights", Dtype::F64, &[classes])?) } else { None };
    let initial = match metadata.initial {
        Start::Smoothing(eps) => Initial::Smoothing(eps),
        Start::Uniform => Initial::Uniform,
        Start::Zero => Initial::Zero,
        Start::OneHot => Initial::OneHot,
        Start::Matrix => Initial::Matrix(loaded.vector::<f32>("initial_soft_labels", Dtype::F32, &[classes, classes])?),
    };
    let options = Options {
        alpha: metadata.alpha,
        initial,
        empty_class: metadata.empty_class.0,
        min_count: metadata.min_count,
        momentum: metadata.momentum,
        freeze_above: metadata.freeze_above,
        class_weights: weights,
        ignore_index: metadata.ignore_index,
        ..loaded.options
    };
    options.validate().map_err(|error| damaged(&error))?;
    if !(0..i64::MAX).contains(&loaded.epoch) {
        return Err(damaged(&format_args!("epoch = {} is outside [0, {})", loaded.epoch, i64::MAX)));
    }
    loaded.check_values(classes)?;
    Ok(Loaded { options, ..loaded })
}

impl Loaded<'_> {
    /// Copies S, A, c and the counters. Cannot fail: `parse` checked them.
    pub fn write_to(&self, state: &mut State) {
        fn copy<T: NoUninit + bytemuck::AnyBitPattern + Element + Zeroable>(bytes: &[u8], to: &mut Matrix<T>) {
            let length = to.columns() * size_of::<T>();
            for (row, bytes) in bytes.chunks_exact(length).enumerate() {
                bytemuck::cast_slice_mut::<T, u8>(to.row_mut(row)).copy_from_slice(bytes);
            }
        }
        let bytes = |name: &str| self.tensors.tensor(name).map(|view| view.data()).unwrap_or_default();
        copy(bytes("soft_labels"), &mut state.soft_labels);
        copy(bytes("sums"), &mut state.sums);
        copy(bytes("counts"), &mut state.counts);
        copy(bytes("counters"), &mut state.counters);
    }

    /// A file with a right checksum may still hold what no criterion can: others may write this format too.
    fn check_values(&self, classes: usize) -> Result<()> {
        let bytes = |name: &str| self.tensors.tensor(name).map(|view| view.data()).unwrap_or_default();
        let soft_labels = bytes("soft_labels").chunks_exact(4).map(|bytes| f64::from(bytemuck::pod_read_unaligned::<f32>(bytes)));
        let corrupted = |error: Error| Error::new(ErrorKind::InvalidFile, format!("corrupted file: {error}"));
        validate_soft_labels("soft_labels", classes, soft_labels).map_err(corrupted)?;
        for name in ["sums", "counts", "counters"] {
            let values = bytes(name).chunks_exact(8).map(bytemuck::pod_read_unaligned::<i64>);
            check_not_negative(name, values).map_err(corrupted)?;
        }
        Ok(())
    }

    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8]> {
        let Ok(view) = self.tensors.tensor(name) else { fail!(InvalidFile, "corrupted file: tensor {name:?} is missing") };
        if view.dtype() != dtype || view.shape() != shape {
            let (found, size) = (view.dtype(), view.shape());
            fail!(InvalidFile, "corrupted file: tensor {name:?} is {found} {size:?}, not {dtype} {shape:?}");
        }
        Ok(view.data())
    }

    fn vector<T: NoUninit + bytemuck::AnyBitPattern + Default>(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<T>> {
        let bytes = self.bytes(name, dtype, shape)?;
        let mut values = try_vec::<T>(name, bytes.len() / size_of::<T>())?;
        bytemuck::cast_slice_mut::<T, u8>(&mut values).copy_from_slice(bytes);
        Ok(values)
    }
}

/// Says what is wrong with bytes that are no safetensors file: cut off, changed, or of another kind altogether.
fn not_readable(bytes: &[u8], error: &SafeTensorError) -> Error {
    let header = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    let looks_like_one = bytes.get(8) == Some(&b'{') || bytes.len() <= 8;
    let message = match error {
        SafeTensorError::HeaderTooSmall => {
            format!("truncated file: {} bytes are fewer than the 8 that a safetensors file begins with", bytes.len())
        }
        SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooLarge if looks_like_one => {
            format!("truncated file: its header has {} bytes, but only {} follow", header.unwrap_or(0), bytes.len().saturating_sub(8))
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("truncated or lengthened file: its {} bytes are not those that its header lists", bytes.len())
        }
        error if looks_like_one => format!("corrupted file: {error}"),
        error => format!("foreign file: it is not in the safetensors format ({error})"),
    };
    Error::new(ErrorKind::InvalidFile, message)
}
