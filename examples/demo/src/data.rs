//! Images and their classes, independent of the file format.

mod digits;
mod idx;
mod split;

use std::path::Path;

use anyhow::{Result, ensure};

pub use split::{Part, Split};

/// With fewer images, a part of a split could be empty.
const FEWEST: usize = 9;

/// Grey images of the same size, and the class of each.
#[derive(Debug)]
pub struct Images {
    /// Brightness from 0 to 1, image by image, row by row.
    pub pixels: Vec<f32>,
    pub classes: Vec<i64>,
    pub width: usize,
    pub height: usize,
}

impl Images {
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    pub fn size(&self) -> usize {
        self.width * self.height
    }

    pub fn image(&self, i: usize) -> &[f32] {
        &self.pixels[i * self.size()..][..self.size()]
    }
}

/// The images for training and testing.
#[derive(Debug)]
pub struct Dataset {
    /// For titles, such as "UCI handwritten digits".
    pub name: String,
    pub class_names: Vec<String>,
    /// Training and validation images are drawn from these, and test images as well if `test` is `None`.
    pub train: Images,
    /// The test images, if the data set has separate ones.
    pub test: Option<Images>,
}

impl Dataset {
    /// Reads the IDX files of `folder`, or the digits that come with the demo.
    pub fn read(folder: Option<&Path>) -> Result<Self> {
        let data = match folder {
            Some(folder) => idx::read(folder)?,
            None => digits::read()?,
        };
        ensure!(data.train.len() >= FEWEST, "{} images are too few to train on: {FEWEST} are needed", data.train.len());
        Ok(data)
    }

    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// Identifies the data set: a run is resumed only with the same images.
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for images in std::iter::once(&self.train).chain(&self.test) {
            for class in &images.classes {
                hasher.update(&class.to_le_bytes());
            }
            for pixel in &images.pixels {
                hasher.update(&pixel.to_le_bytes());
            }
        }
        hasher.finalize()
    }
}

fn digit_names(classes: usize) -> Vec<String> {
    (0..classes).map(|class| class.to_string()).collect()
}
