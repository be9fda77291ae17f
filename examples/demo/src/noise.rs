//! Wrong labels.

use rand::Rng;
use rand::seq::SliceRandom;

/// Replaces the fraction `noise` of the labels by another class, chosen uniformly.
pub fn with_wrong_labels(labels: &[i64], classes: usize, noise: f64, generator: &mut impl Rng) -> Vec<i64> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.shuffle(generator);
    let wrong = (noise * labels.len() as f64).round() as usize;
    let mut noisy = labels.to_vec();
    for i in &order[..wrong] {
        let shift = generator.random_range(1..classes as i64);
        noisy[*i] = (labels[*i] + shift) % classes as i64;
    }
    noisy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, generator};

    #[test]
    fn the_share_is_exact_and_every_wrong_class_is_as_likely() {
        let labels = vec![2; 10_000];
        let noisy = with_wrong_labels(&labels, 5, 0.4, &mut generator(0, Purpose::WrongLabels));
        let count = |class| noisy.iter().filter(|label| **label == class).count();
        assert_eq!(count(2), 6_000);
        for class in [0, 1, 3, 4] {
            // 1,000 expected, standard deviation 27.
            assert!(count(class).abs_diff(1_000) < 110, "{class}: {}", count(class));
        }
        assert_eq!(noisy, with_wrong_labels(&labels, 5, 0.4, &mut generator(0, Purpose::WrongLabels)));
    }
}
