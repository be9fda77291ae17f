//! The training, validation and test images of a seed.

use rand::seq::SliceRandom;

use super::{Dataset, Images};
use crate::random::{self, Purpose};

/// A selection of images of a data set.
#[derive(Debug)]
pub struct Part<'a> {
    pub images: &'a Images,
    pub indices: Vec<usize>,
}

impl Part<'_> {
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    pub fn image(&self, i: usize) -> &[f32] {
        self.images.image(self.indices[i])
    }

    pub fn classes(&self) -> Vec<i64> {
        self.indices.iter().map(|index| self.images.classes[*index]).collect()
    }
}

/// Training, validation and test images in the ratio 6:1:2.
#[derive(Debug)]
pub struct Split<'a> {
    pub train: Part<'a>,
    pub validation: Part<'a>,
    pub test: Part<'a>,
}

impl<'a> Split<'a> {
    /// Draws a split with at most `train` training images.
    pub fn draw(data: &'a Dataset, seed: u64, train: usize) -> Self {
        let mut indices: Vec<usize> = (0..data.train.len()).collect();
        indices.shuffle(&mut random::generator(seed, Purpose::Split));
        let share = if data.test.is_some() { 7 } else { 9 };
        let train = train.min(data.train.len() * 6 / share);
        let validation_end = train + (train / 6).max(1);
        let test = match &data.test {
            Some(images) => {
                let mut indices: Vec<usize> = (0..images.len()).collect();
                indices.shuffle(&mut random::generator(seed, Purpose::Split));
                indices.truncate(train.div_ceil(3));
                Part { images, indices }
            }
            None => {
                let rest = &indices[validation_end..];
                Part { images: &data.train, indices: rest[..rest.len().min(train.div_ceil(3))].to_vec() }
            }
        };
        Self {
            validation: Part { images: &data.train, indices: indices[train..validation_end].to_vec() },
            train: Part { images: &data.train, indices: indices[..train].to_vec() },
            test,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn parts_share_no_image_and_a_seed_draws_the_same() {
        let data = Dataset::read(None).unwrap();
        let split = Split::draw(&data, 3, usize::MAX);
        assert_eq!([split.train.len(), split.validation.len(), split.test.len()], [1198, 199, 400]);
        let all: HashSet<usize> = [&split.train, &split.validation, &split.test].iter().flat_map(|part| part.indices.clone()).collect();
        assert_eq!(all.len(), 1797);
        assert_eq!(Split::draw(&data, 3, usize::MAX).test.indices, split.test.indices);
        assert_ne!(Split::draw(&data, 4, usize::MAX).test.indices, split.test.indices);
    }
}
