//! The IDX files of MNIST and its relatives (<http://yann.lecun.com/exdb/mnist/>), gzipped or not.
//!
//! A file consists of a big-endian magic number (0, 0, 8 for bytes, number of dimensions), the sizes of the dimensions
//! as 32-bit numbers, and the bytes.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

use super::{Dataset, Images, digit_names};

const FASHION: [&str; 10] = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

pub fn read(folder: &Path) -> Result<Dataset> {
    ensure!(folder.is_dir(), "{}: there is no such folder", folder.display());
    let train = read_images(folder, "train")?;
    let test = read_images(folder, "t10k")?;
    ensure!(
        (train.width, train.height) == (test.width, test.height),
        "{}: training images of {}x{}, but test images of {}x{}",
        folder.display(),
        train.width,
        train.height,
        test.width,
        test.height
    );
    let classes = train.classes.iter().chain(&test.classes).max().map_or(0, |largest| *largest as usize + 1);
    ensure!(classes >= 2, "{}: the labels name fewer than two classes", folder.display());

    // If the folder is a link or ".", its real name is more informative.
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let is_fashion = classes == 10 && full.to_string_lossy().to_lowercase().contains("fashion");
    let name = if is_fashion {
        "Fashion-MNIST".into()
    } else {
        full.file_name().map_or_else(|| "IDX images".into(), |name| name.to_string_lossy().into_owned())
    };
    let class_names = if is_fashion { FASHION.map(String::from).to_vec() } else { digit_names(classes) };
    Ok(Dataset { name, class_names, train, test: Some(test) })
}

fn read_images(folder: &Path, part: &str) -> Result<Images> {
    let path = find(folder, part, "images", "idx3")?;
    let (dimensions, bytes) = read_file(&path, 3)?;
    let [count, height, width] = dimensions[..] else { bail!("{}: not three dimensions", path.display()) };
    let label_path = find(folder, part, "labels", "idx1")?;
    let (label_dimensions, labels) = read_file(&label_path, 1)?;
    ensure!(
        label_dimensions[0] == count,
        "{}: {} labels for the {count} images of {}",
        label_path.display(),
        label_dimensions[0],
        path.display()
    );
    ensure!(count > 0 && width > 0 && height > 0, "{}: there are no images in it", path.display());
    Ok(Images {
        pixels: bytes.iter().map(|byte| f32::from(*byte) / 255.0).collect(),
        classes: labels.iter().map(|label| i64::from(*label)).collect(),
        width,
        height,
    })
}

/// Both spellings are common: "train-images-idx3-ubyte" and "train-images.idx3-ubyte".
fn find(folder: &Path, part: &str, kind: &str, form: &str) -> Result<PathBuf> {
    for separator in ["-", "."] {
        for ending in ["", ".gz"] {
            let path = folder.join(format!("{part}-{kind}{separator}{form}-ubyte{ending}"));
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    bail!("{}: there is no {part}-{kind}-{form}-ubyte or {part}-{kind}-{form}-ubyte.gz in it", folder.display())
}

/// Returns the dimensions and the bytes of an IDX file.
fn read_file(path: &Path, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let read = || {
        let raw = fs::read(path)?;
        if raw.starts_with(&[0x1f, 0x8b]) {
            let mut bytes = Vec::new();
            MultiGzDecoder::new(&raw[..]).read_to_end(&mut bytes).context("the gzip file is damaged or cut off")?;
            parse(bytes, rank)
        } else {
            parse(raw, rank)
        }
    };
    read().with_context(|| path.display().to_string())
}

fn parse(mut bytes: Vec<u8>, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let header = 4 + 4 * rank;
    ensure!(bytes.len() >= header, "cut off: {} bytes, the header alone takes {header}", bytes.len());
    let magic = [0, 0, 8, rank as u8];
    ensure!(
        bytes[..4] == magic,
        "the magic number is {:#010x} instead of {:#010x}: not an IDX file of {rank}-dimensional bytes",
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        u32::from_be_bytes(magic)
    );
    let dimensions: Vec<usize> = bytes[4..header].chunks_exact(4).map(|d| u32::from_be_bytes([d[0], d[1], d[2], d[3]]) as usize).collect();
    let expected = dimensions.iter().try_fold(1usize, |product, d| product.checked_mul(*d));
    let found = bytes.len() - header;
    ensure!(expected == Some(found), "{found} bytes of data, but its dimensions {dimensions:?} ask for another number");
    bytes.drain(..header);
    Ok((dimensions, bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn idx(dimensions: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        for dimension in dimensions {
            bytes.extend(dimension.to_be_bytes());
        }
        bytes.extend(data);
        bytes
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("train-images-idx3-ubyte", &idx(&[2, 1, 3], &[0, 51, 255, 1, 2, 3]));
        write("train-labels-idx1-ubyte", &idx(&[2], &[1, 0]));
        write("t10k-images.idx3-ubyte", &idx(&[1, 1, 3], &[9, 9, 9]));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&idx(&[1], &[1])).unwrap();
        write("t10k-labels-idx1-ubyte.gz", &gzip.finish().unwrap());
        folder
    }

    fn complaint(folder: &Path) -> String {
        format!("{:#}", read(folder).unwrap_err())
    }

    #[test]
    fn plain_and_gzipped_files_are_read() {
        let folder = folder();
        let data = read(folder.path()).unwrap();
        assert_eq!((data.train.width, data.train.height, data.train.len()), (3, 1, 2));
        assert_eq!(data.train.image(0), [0.0, 0.2, 1.0]);
        assert_eq!(data.train.classes, [1, 0]);
        assert_eq!(data.test.unwrap().classes, [1]);
        assert_eq!(data.class_names, ["0", "1"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_files_name() {
        let folder = folder();
        let path = folder.path().join("train-labels-idx1-ubyte");
        for (bytes, words) in [
            (vec![0, 0], "cut off"),
            (idx(&[2], &[1]), "1 bytes of data"),
            (idx(&[1], &[1]), "1 labels for the 2 images"),
            (idx(&[2, 1, 1], &[1, 1]), "magic number is 0x00000803 instead of 0x00000801"),
            (vec![0x1f, 0x8b, 8, 0], "gzip file is damaged"),
        ] {
            fs::write(&path, bytes).unwrap();
            let complaint = complaint(folder.path());
            assert!(complaint.contains("train-labels-idx1-ubyte") && complaint.contains(words), "{complaint}");
        }
        fs::remove_file(&path).unwrap();
        assert!(complaint(folder.path()).contains("there is no train-labels-idx1-ubyte"));
        assert!(complaint(&path).contains("no such folder"));
    }

    #[test]
    fn dimensions_beyond_all_measure_are_an_error() {
        assert!(parse(idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 9]), 3).is_err());
    }
}
