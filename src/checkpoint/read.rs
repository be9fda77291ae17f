//! Reading: what a file says is checked before anything is taken from it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
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

/// More bytes than the header of a file has.
const HEADER_ROOM: u64 = 1 << 20;

/// Reads a whole file, but no more than a criterion with so many classes can have saved: the name may stand for anything, and need not fit into
/// memory.
pub(crate) fn read(path: &Path, options: &Options) -> Result<Vec<u8>> {
    let most = most_bytes(options);
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        bytes.try_reserve_exact(file.metadata()?.len().min(most + 1) as usize)?;
        file.take(most + 1).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        let kind = if error.kind() == io::ErrorKind::OutOfMemory { ErrorKind::OutOfMemory } else { ErrorKind::Io };
        return Err(Error::new(kind, format!("cannot be read: {error}")));
    }
    if bytes.len() as u64 > most {
        return Err(too_large(&bytes, most, options));
    }
    Ok(bytes)
}

/// No file of a criterion with so many classes is larger.
fn most_bytes(options: &Options) -> u64 {
    let all = Options { class_weights: Some(Vec::new()), initial: Initial::Matrix(Vec::new()), ..options.without_tensors() };
    let sizes = shapes(&all)
        .into_iter()
        .map(|(_, dtype, shape)| shape.iter().fold((dtype.bitsize() / 8) as u64, |bytes, &length| bytes.saturating_mul(length as u64)));
    // A byte more must still be a number, and a length of a vector.
    sizes.fold(HEADER_ROOM, u64::saturating_add).min(isize::MAX as u64 - 1)
}

/// Says what a file is that has more than `most` bytes, from its beginning.
fn too_large(bytes: &[u8], most: u64, options: &Options) -> Error {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__", default)]
        metadata: HashMap<String, String>,
    }
    let length = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    let header = bytes.get(8..).and_then(|bytes| bytes.get(..usize::try_from(length).ok()?));
    let text = header.and_then(|header| serde_json::from_slice::<Header>(header).ok()?.metadata.remove(METADATA_KEY));
    let saved = text.map(|text| metadata(&text).and_then(|metadata| check_classes(&metadata, options)));
    match saved {
        None => Error::new(
            ErrorKind::InvalidFile,
            format!("foreign file: it has more than {most} bytes, and no metadata entry {METADATA_KEY:?}"),
        ),
        Some(Err(error)) => error,
        Some(Ok(())) => {
            let message = format!("corrupted file: it has more than {most} bytes, the most for num_classes = {}", options.classes);
            Error::new(ErrorKind::InvalidFile, message)
        }
    }
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
    let metadata = metadata(text)?;
    let mut names: Vec<_> = tensors.iter().map(|(name, view)| (name.to_owned(), view.data())).collect();
    names.sort_unstable();
    let stated = format!("\"checksum\":\"{}\"", metadata.checksum);
    let blank = text.replacen(&stated, &format!("\"checksum\":\"{NO_CHECKSUM}\""), 1);
    let found = checksum(&blank, names.iter().map(|(name, data)| (name.as_str(), *data)));
    if found != metadata.checksum {
        fail!(InvalidFile, "corrupted file: the checksum is {found}, but the file states {}", metadata.checksum);
    }
    check_classes(&metadata, options)?;
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
    let expected = shapes(&options);
    if let Some((name, _)) = names.iter().find(|(name, _)| !expected.iter().any(|(expected, ..)| expected == name)) {
        fail!(InvalidFile, "corrupted file: tensor {name:?} does not belong to a saved state");
    }
    if !(0..i64::MAX).contains(&loaded.epoch) {
        return Err(damaged(&format_args!("epoch = {} is outside [0, {})", loaded.epoch, i64::MAX)));
    }
    loaded.check_values(classes)?;
    Ok(Loaded { options, ..loaded })
}

/// What went wrong where a file says what no criterion can have saved.
fn damaged(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidFile, format!("corrupted file: invalid metadata: {error}"))
}

/// Reads the entry of the metadata that is this library's.
fn metadata(text: &str) -> Result<Metadata> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
        version: String,
    }
    let Version { format, version } = serde_json::from_str(text).map_err(|error| damaged(&error))?;
    if format > FORMAT {
        fail!(
            InvalidFile,
            "newer file: its format {format}, written by libols {version}, is newer than {FORMAT}, the latest that this library reads"
        );
    }
    serde_json::from_str(text).map_err(|error| damaged(&error))
}

fn check_classes(metadata: &Metadata, options: &Options) -> Result<()> {
    if metadata.num_classes != options.classes {
        fail!(InvalidArgument, "the file has num_classes = {}, but the criterion has {}", metadata.num_classes, options.classes);
    }
    Ok(())
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
