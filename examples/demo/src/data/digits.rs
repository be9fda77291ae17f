//! The UCI handwritten digits that come with the demo (see `examples/data/README.md`).

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use super::{Dataset, Images, digit_names};

const FILE: &[u8] = include_bytes!("../../../data/digits.csv.gz");
const SIDE: usize = 8;
/// The value of the brightest pixel: a pixel counts the dots of a 4x4 block.
const BRIGHTEST: f32 = 16.0;

pub fn read() -> Result<Dataset> {
    let train = parse(FILE).context("the bundled digits.csv.gz")?;
    Ok(Dataset { name: "UCI handwritten digits".into(), class_names: digit_names(10), train, test: None })
}

/// Reads lines of 64 pixels and a class.
fn parse(gzipped: &[u8]) -> Result<Images> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(GzDecoder::new(gzipped));
    let (mut pixels, mut classes) = (Vec::new(), Vec::new());
    for record in reader.deserialize() {
        let numbers: Vec<f32> = record?;
        ensure!(numbers.len() == SIDE * SIDE + 1, "a line of {} numbers instead of 65", numbers.len());
        let (image, class) = numbers.split_at(SIDE * SIDE);
        pixels.extend(image.iter().map(|pixel| pixel / BRIGHTEST));
        classes.push(class[0] as i64);
    }
    Ok(Images { pixels, classes, width: SIDE, height: SIDE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_digits_are_whole() {
        let digits = read().unwrap().train;
        assert_eq!(digits.len(), 1797);
        assert_eq!(digits.pixels.len(), 1797 * 64);
        assert!(digits.pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
        // Class counts from the description of the data set, testing part.
        let count = |class| digits.classes.iter().filter(|c| **c == class).count();
        assert_eq!((0..10).map(count).collect::<Vec<_>>(), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    #[test]
    fn a_cut_off_file_is_an_error() {
        assert!(parse(&FILE[..FILE.len() / 2]).is_err());
    }
}
