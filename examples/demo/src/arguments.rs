//! The command line.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::RangedU64ValueParser;

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p ols-demo
      the digits that come with it, less than a minute
  cargo run --release -p ols-demo -- --resume
      goes on where Ctrl-C stopped it
  cargo run --release -p ols-demo -- --data /usr/share/datasets/fashion-mnist
      Fashion-MNIST, here as the Debian package dataset-fashion-mnist installs it
  cargo run --release -p ols-demo -- --noise 0.6 --alpha 0.3 --seeds 3 --out noisier";

/// Trains one small network with cross entropy, label smoothing and online label smoothing, on clean and on wrong labels,
/// and draws what happens.
#[derive(Debug, Parser)]
#[command(name = "ols-demo", after_help = EXAMPLES)]
pub struct Arguments {
    /// Folder of the MNIST family's IDX files, gzipped or not [default: the UCI digits that come with the demo]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Repetitions, each with its own split, first weights, batches and wrong labels [default: 5; 3 with --data]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1000))]
    pub seeds: Option<u64>,

    /// Epochs of every run [default: 100]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub epochs: Option<usize>,

    /// Training images; a sixth as many validate and a third as many test [default: all; 3000 with --data]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub train: Option<usize>,

    /// Share of wrong labels in the noisy runs
    #[arg(long, value_name = "SHARE", default_value = "0.4", value_parser = share)]
    pub noise: f64,

    /// Weight of the hard label in online label smoothing
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = share)]
    pub alpha: f64,

    /// Epsilon of label smoothing, and of online label smoothing's first epoch
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share)]
    pub smoothing: f64,

    /// Units in each of the network's two hidden layers
    #[arg(long, value_name = "N", default_value = "128", value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub hidden: usize,

    /// Learning rate of the first step; a cosine takes it to 0
    #[arg(long, value_name = "RATE", default_value = "0.05", value_parser = share)]
    pub learning_rate: f64,

    /// Weight decay
    #[arg(long, value_name = "RATE", default_value = "0.001", value_parser = share)]
    pub weight_decay: f64,

    /// Folder for results and pictures [default: target/demo of the workspace]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Go on with the experiment in the --out folder; finished runs are not repeated, and --seeds may grow
    #[arg(long)]
    pub resume: bool,

    /// A run of a few seconds, to see whether everything works: 2 seeds, 3 epochs, 300 training images
    #[arg(long)]
    pub quick: bool,

    /// Runs at a time [default: one per processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZero<usize>>,
}

impl Arguments {
    pub fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(self.default(2, 3, 5))
    }

    pub fn epochs(&self) -> usize {
        self.epochs.unwrap_or(self.default(3, 100, 100))
    }

    pub fn train(&self) -> usize {
        self.train.unwrap_or(self.default(300, 3000, usize::MAX))
    }

    fn default<T>(&self, quick: T, with_data: T, else_: T) -> T {
        match (self.quick, &self.data) {
            (true, _) => quick,
            (false, Some(_)) => with_data,
            (false, None) => else_,
        }
    }

    pub fn out(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| {
            // The workspace in which the demo was built or, if it no longer exists, the current folder.
            let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
            workspace.canonicalize().unwrap_or_default().join("target/demo")
        })
    }

    pub fn threads(&self) -> usize {
        self.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("a number from 0 to 1 is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in ["--epochs 0", "--seeds 0", "--noise 1.5", "--noise nan", "--alpha -1", "--threads 0", "--train 0", "--nonsense"] {
            let words = std::iter::once("ols-demo").chain(words.split(' '));
            assert_eq!(Arguments::try_parse_from(words).unwrap_err().exit_code(), 2);
        }
    }
}
