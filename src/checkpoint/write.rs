//! Writing: the bytes of a file, how many they are, and the file itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bytemuck::{NoUninit, Zeroable};
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensorError, View};

use super::METADATA_KEY;
use super::contents::{check_not_negative, checksum, metadata, shapes, text};
use crate::error::{Error, ErrorKind, Result, fail};
use crate::options::{Initial, Options, validate_soft_labels};
use crate::state::{Matrix, State, try_vec};
use crate::tensor::Element;

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

/// What the file is made of: the tensors by name, and the metadata with its checksum.
type Contents<'a> = (Vec<(&'static str, Tensor<'a>)>, HashMap<String, String>);

/// Whether a file with this state could be loaded. A batch that was taken back without having been added, or what the caller has written into
/// the statistics, may have made it one that cannot.
fn check_values(options: &Options, state: &State) -> Result<()> {
    fn values<T: Element + Zeroable>(matrix: &Matrix<T>) -> impl Iterator<Item = T> {
        (0..matrix.rows()).flat_map(|row| matrix.row(row).iter().copied())
    }
    let refused = |error: Error, why: &str| {
        Error::new(ErrorKind::InvalidState, format!("the state cannot be saved, since it could not be loaded: {error}{why}"))
    };
    validate_soft_labels("soft_labels", options.classes, values(&state.soft_labels).map(f64::from)).map_err(|error| refused(error, ""))?;
    check_not_negative("counters", values(&state.counters)).map_err(|error| refused(error, ""))?;
    check_not_negative("sums", values(&state.sums))
        .and_then(|()| check_not_negative("counts", values(&state.counts)))
        .map_err(|error| refused(error, "; was a batch taken back that had not been added, or with other logits?"))
}

fn describe<'a>(options: &'a Options, state: &'a State, epoch: i64) -> Result<Contents<'a>> {
    check_values(options, state)?;
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
