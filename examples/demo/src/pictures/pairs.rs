//! The pairs of classes whose soft labels give each other the most probability, and test images that show why.

use std::path::Path;

use anyhow::Result;

use super::Subject;
use super::canvas::{self, Area, CENTRE, LEFT, RIGHT, bold, font, image, text};
use super::colours::FAINT_INK;
use crate::data::Split;
use crate::loss::{Labels, Loss};

const PAIRS: usize = 6;
/// Number of example images of each class of a pair.
const EXAMPLES: usize = 4;

struct Pair {
    first: usize,
    second: usize,
}

/// A test image, and the probability that the network assigned to the other class of the pair.
struct Example {
    pixels: Vec<f32>,
    probability: f32,
}

pub fn draw(path: &Path, subject: Subject) -> Result<()> {
    let soft_labels = &subject.group(Labels::Clean, Loss::OnlineLabelSmoothing)?.soft_labels;
    let pairs = most_confused(soft_labels);
    let rows = pairs.len().div_ceil(2);
    canvas::draw(path, 1000, 84 + 292 * rows as u32, |area| {
        let subtitle = format!(
            "{}, clean labels. Left: what a class's soft label gives to the other; right: the test images nearest to it, with its probability.",
            subject.data.name
        );
        canvas::heading(area, "The most confused pairs of classes", &subtitle)?;
        for (i, pair) in pairs.iter().enumerate() {
            let corner = (24.0 + 490.0 * (i % 2) as f64, 88.0 + 292.0 * (i / 2) as f64);
            draw_pair(area, corner, subject, pair, soft_labels)?;
        }
        Ok(())
    })
}

fn draw_pair(area: &Area, (x, y): (f64, f64), subject: Subject, pair: &Pair, soft_labels: &[Vec<f64>]) -> Result<()> {
    const SIZE: f64 = 80.0;
    let names = &subject.data.class_names;
    text(area, &format!("{} and {}", names[pair.first], names[pair.second]), (x, y + 10.0), &bold(15.0), LEFT)?;
    for (row, (class, other)) in [(pair.first, pair.second), (pair.second, pair.first)].into_iter().enumerate() {
        let y = y + 32.0 + 122.0 * row as f64;
        let small = font(12.0).color(&FAINT_INK);
        text(area, &names[class], (x + 92.0, y + 30.0), &bold(13.0), RIGHT)?;
        text(area, &format!("gives {:.1} %", 100.0 * soft_labels[class][other]), (x + 92.0, y + 50.0), &small, RIGHT)?;
        for (i, example) in nearest(subject, class, other).iter().enumerate() {
            let x = x + 106.0 + (SIZE + 8.0) * i as f64;
            image(area, &example.pixels, subject.data.train.width, (x, y), SIZE)?;
            let words = format!("{:.0} %", 100.0 * example.probability);
            text(area, &words, (x + SIZE / 2.0, y + SIZE + 13.0), &small, CENTRE)?;
        }
    }
    Ok(())
}

/// Returns the pairs in the order of the probability that their soft labels give to each other.
fn most_confused(soft_labels: &[Vec<f64>]) -> Vec<Pair> {
    let classes = soft_labels.len();
    let mutual = |pair: &Pair| soft_labels[pair.first][pair.second] + soft_labels[pair.second][pair.first];
    let mut pairs: Vec<Pair> = (0..classes).flat_map(|second| (0..second).map(move |first| Pair { first, second })).collect();
    pairs.sort_by(|a, b| mutual(b).total_cmp(&mutual(a)));
    pairs.truncate(PAIRS);
    pairs
}

/// Returns the test images of `class`, over all seeds, to which the network assigned the highest probability of being
/// `other`.
fn nearest(subject: Subject, class: usize, other: usize) -> Vec<Example> {
    let mut found: Vec<(usize, Example)> = Vec::new();
    let runs = subject.finished.iter().filter(|finished| {
        let run = finished.result.run;
        run.labels == Labels::Clean && run.loss == Loss::OnlineLabelSmoothing
    });
    for run in runs {
        let test = Split::draw(subject.data, run.result.run.seed, subject.settings.train).test;
        for (i, (row, label)) in run.predictions.rows().zip(test.classes()).enumerate() {
            if label == class as i64 {
                found.push((test.indices[i], Example { pixels: test.image(i).to_vec(), probability: row[other] }));
            }
        }
    }
    found.sort_by(|(_, a), (_, b)| b.probability.total_cmp(&a.probability));
    // An image may be a test image of several seeds.
    let mut seen = std::collections::HashSet::new();
    found.into_iter().filter(|(index, _)| seen.insert(*index)).map(|(_, example)| example).take(EXAMPLES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_ranked_by_both_directions() {
        let soft_labels = [vec![0.8, 0.2, 0.0], vec![0.0, 0.9, 0.1], vec![0.1, 0.2, 0.7]];
        let pairs: Vec<_> = most_confused(&soft_labels).iter().map(|pair| (pair.first, pair.second)).collect();
        assert_eq!(pairs, [(1, 2), (0, 1), (0, 2)]);
    }
}
