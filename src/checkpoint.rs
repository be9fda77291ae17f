//! The saved state: a safetensors file, readable by anyone, with a checksum. `docs/file-format.md` says what is in it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bytemuck::{NoUninit, Zeroable};
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, fail};
use crate::options::{EmptyClass, Initial, Options, validate_soft_labels};
use crate::state::{Matrix, State, try_vec};
use crate::statistics::COUNTERS;
use crate::tensor::Element;

/// The number of this format. A reader takes files of its own number and of lower ones.
const FORMAT: u32 = 1;
const METADATA_KEY: &str = "libols";
const NO_CHECKSUM: &str = "00000000";

/// What the file says beside its tensors.
#[derive(Serialize, Deserialize)]
struct Metadata {
    format: u32,
    version: String,
    checksum: String,
    num_classes: usize,
    epoch: i64,
    alpha: f64,
    initial: Start,
    empty_class: Policy,
    min_count: i64,
    momentum: f64,
    freeze_above: Option<f64>,
    ignore_index: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Start {
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
struct Policy(#[serde(with = "PolicyNames")] EmptyClass);

/// A tensor of the file.
struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> Tensor<'a> {
    fn slice<T: NoUninit>(dtype: Dtype, shape: Vec<usize>, values: &'a [T]) -> Self {
        Self { dtype, shape, bytes: Cow::Borrowed(bytemuck::cast_slice(values)) }
    }

    /// The matrix as it lies, or a copy where its rows lie apart.
    fn matrix<T: Element + NoUninit + Zeroable>(dtype: Dtype, shape: Vec<usize>, matrix: &'a Matrix<T>) -> Result<Self> {
        if let Some(values) = matrix.contiguous() {
            return Ok(Self::slice(dtype, shape, values));
        }
        let mut bytes = try_vec::<u8>("a copy of the state", matrix.rows() * matrix.columns() * size_of::<T>())?;
        for (row, to) in bytes.chunks_exact_mut(matrix.columns() * size_of::<T>()).enumerate() {
            to.copy_from_slice(bytemuck::cast_slice(matrix.row(row)));
        }
        Ok(Self { dtype, shape, bytes: Cow::Owned(bytes) })
    }
}

/// The tensors of the file, in the order of their names.
fn shapes(options: &Options) -> Vec<(&'static str, Dtype, Vec<usize>)> {
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
fn metadata(options: &Options, epoch: i64) -> Metadata {
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

fn text(metadata: &Metadata) -> Result<String> {
    serde_json::to_string(metadata).map_err(|error| Error::new(ErrorKind::Io, format!("metadata: {error}")))
}

/// What the file is made of: the tensors by name, and the metadata with its checksum.
type Contents<'a> = (Vec<(&'static str, Tensor<'a>)>, HashMap<String, String>);

fn describe<'a>(options: &'a Options, state: &'a State, epoch: i64) -> Result<Contents<'a>> {
    let mut tensors = Vec::new();
    for (name, dtype, shape) in shapes(options) {
        let tensor = match name {
            "counters" => Tensor::matrix(dtype, shape, &state.counters)?,
            "counts" => Tensor::matrix(dtype, shape, &state.counts)?,
            "soft_labels" => Tensor::matrix(dtype, shape, &state.soft_labels)?,
            "sums" => Tensor::matrix(dtype, shape, &state.sums)?,
            _ => match (&options.class_weights, &options.initial) {
                (Some(weights), _) if name == "class_weights" => Tensor::slice(dtype, shape, weights),
                (_, Initial::Matrix(matrix)) => Tensor::slice(dtype, shape, matrix),
                _ => unreachable!("a tensor that the options do not have"),
            },
        };
        tensors.push((name, tensor));
    }
    let mut metadata = metadata(options, epoch);
    metadata.checksum = checksum(&text(&metadata)?, tensors.iter().map(|(name, tensor)| (*name, &tensor.bytes[..])));
    Ok((tensors, HashMap::from([(METADATA_KEY.into(), text(&metadata)?)])))
}

/// How many bytes the file has, without the state: its header tells, which lists the tensors and has a checksum of fixed length.
pub(crate) fn size(options: &Options, epoch: i64) -> Result<usize> {
    let failed = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Io, format!("saved state: {error}"));
    let mut shapes = shapes(options);
    // The order in which `safetensors` lays them out.
    shapes.sort_by(|(name, dtype, _), (other_name, other_dtype, _)| other_dtype.cmp(dtype).then(name.cmp(other_name)));
    let mut end = 0;
    let tensors = shapes.into_iter().map(|(name, dtype, shape)| {
        let begin = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (name.to_owned(), TensorInfo { dtype, shape, data_offsets: (begin, end) })
    });
    let tensors = tensors.collect();
    let text = HashMap::from([(METADATA_KEY.into(), text(&metadata(options, epoch))?)]);
    let header = safetensors::tensor::Metadata::new(Some(text), tensors).map_err(|error| failed(&error))?;
    let header = serde_json::to_string(&header).map_err(|error| failed(&error))?;
    // Behind the header's length the header, filled up to 8 bytes, then the tensors.
    Ok(size_of::<u64>() + header.len().next_multiple_of(8) + end)
}

/// Eight hexadecimal digits.
fn checksum<'a>(metadata: &str, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut crc = crc32fast::Hasher::new();
    crc.update(metadata.as_bytes());
    for (name, bytes) in tensors {
        crc.update(name.as_bytes());
        crc.update(bytes);
    }
    format!("{:08x}", crc.finalize())
}

/// The bytes of the file.
pub(crate) fn to_bytes(options: &Options, state: &State, epoch: i64) -> Result<Vec<u8>> {
    let (tensors, metadata) = describe(options, state, epoch)?;
    // `serialize` would end the process where memory is short, so ask first.
    let bytes = size(options, epoch)?;
    let mut probe = Vec::<u8>::new();
    if probe.try_reserve_exact(bytes).is_err() {
        fail!(OutOfMemory, "saved state: {bytes} bytes could not be allocated");
    }
    drop(probe);
    let file = safetensors::serialize(tensors.iter().map(|(name, tensor)| (*name, tensor)), Some(metadata))
        .map_err(|error| Error::new(ErrorKind::Io, format!("saved state: {error}")))?;
    // Callers have made room for as many.
    assert_eq!(file.len(), bytes, "the size of the saved state");
    Ok(file)
}

/// Writes the file: first a temporary one beside it, then, once that is on the disk, under its name.
pub(crate) fn save(options: &Options, state: &State, epoch: i64, path: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Io, format!("{}: cannot be written: {error}", path.display()));
    // A link stays a link; what is there and no file (a device, a folder) is not replaced by one.
    let target: PathBuf = match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => return Err(failed(&"it exists and is not a regular file")),
        Ok(_) => std::fs::canonicalize(path).map_err(|error| failed(&error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => end_of_links(path),
        Err(error) => return Err(failed(&error)),
    };
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (tensors, metadata) = describe(options, state, epoch)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".libols-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A new file gets what the process's umask leaves; a file that is there keeps its own.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder).map_err(|error| failed(&error))?;
    safetensors::serialize_to_file(tensors.iter().map(|(name, tensor)| (*name, tensor)), Some(metadata), temporary.path()).map_err(
        |error| match error {
            SafeTensorError::IoError(error) => failed(&error),
            error => failed(&error),
        },
    )?;
    if let Ok(there) = std::fs::metadata(&target) {
        temporary.as_file().set_permissions(there.permissions()).map_err(|error| failed(&error))?;
    }
    temporary.as_file().sync_all().map_err(|error| failed(&error))?;
    temporary.persist(&target).map_err(|error| failed(&error.error))?;
    // The new name is on the disk once its folder is. Not every file system can do this, and the data is safe already.
    if let Ok(folder) = std::fs::File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Where a link to a file that does not exist yet leads.
fn end_of_links(path: &Path) -> PathBuf {
    // Linux follows no more than 40 links; another process may close a circle meanwhile.
    let mut target = path.to_path_buf();
    for _ in 0..40 {
        let Ok(next) = std::fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    target
}

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
        validate_soft_labels("soft_labels", classes, soft_labels)
            .map_err(|error| Error::new(ErrorKind::InvalidFile, format!("corrupted file: {error}")))?;
        for name in ["sums", "counts", "counters"] {
            let mut values = bytes(name).chunks_exact(8).map(bytemuck::pod_read_unaligned::<i64>).enumerate();
            if let Some((index, value)) = values.find(|(_, value)| *value < 0) {
                fail!(InvalidFile, "corrupted file: element {index} of {name} is negative: {value}");
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_that_of_the_file() {
        for classes in [2, 3, 10, 40, 101] {
            for (weights, matrix) in [(false, false), (true, false), (false, true), (true, true)] {
                for (epoch, alpha) in [(0, 0.5), (7, 0.1), (i64::MAX - 1, 1.0 / 3.0)] {
                    let mut options = Options::new(classes).alpha(alpha).freeze_above(1.0 - alpha);
                    if weights {
                        options = options.class_weights(vec![alpha; classes]);
                    }
                    if matrix {
                        options = options.initial(Initial::Matrix(vec![alpha as f32; classes * classes]));
                    }
                    let mut criterion = crate::Criterion::new(&options).unwrap();
                    criterion.set_epoch(epoch).unwrap();
                    assert_eq!(size(&options, epoch).unwrap(), criterion.to_bytes().unwrap().len());
                }
            }
        }
    }
}
