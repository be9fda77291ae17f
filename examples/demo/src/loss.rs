//! The three losses, all of which are the criterion of the `ols` crate.

use ols::{Initial, Mode, Options};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Loss {
    CrossEntropy,
    LabelSmoothing,
    OnlineLabelSmoothing,
}

impl Loss {
    pub const ALL: [Self; 3] = [Self::CrossEntropy, Self::LabelSmoothing, Self::OnlineLabelSmoothing];

    pub fn name(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross entropy",
            Self::LabelSmoothing => "label smoothing",
            Self::OnlineLabelSmoothing => "online label smoothing",
        }
    }

    /// For file names.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross-entropy",
            Self::LabelSmoothing => "label-smoothing",
            Self::OnlineLabelSmoothing => "online-label-smoothing",
        }
    }

    pub fn options(self, classes: usize, settings: &Settings) -> Options {
        // The runs are executed in parallel, with one thread each.
        let options = Options::new(classes).threads(1);
        match self {
            Self::CrossEntropy => options.alpha(1.0).mode(Mode::Eval),
            // (1 - eps) * onehot + eps / K.
            Self::LabelSmoothing => options.alpha(1.0 - settings.smoothing).initial(Initial::Uniform).mode(Mode::Eval),
            // The first epoch uses classic label smoothing; from the second one on, the soft labels are measured.
            Self::OnlineLabelSmoothing => options.alpha(settings.alpha).initial(Initial::Smoothing(settings.smoothing)),
        }
    }

    /// Whether the loss learns soft labels. The other two accumulate nothing and never end an epoch.
    pub fn learns_soft_labels(self) -> bool {
        self == Self::OnlineLabelSmoothing
    }
}

/// The labels on which a run trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Labels {
    Clean,
    Noisy,
}

impl Labels {
    pub const ALL: [Self; 2] = [Self::Clean, Self::Noisy];

    pub fn name(self, noise: f64) -> String {
        match self {
            Self::Clean => "clean labels".into(),
            Self::Noisy => format!("{} % wrong labels", noise * 100.0),
        }
    }

    pub fn short_name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noisy => "noisy",
        }
    }
}

/// One training run: a loss, labels and a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    pub loss: Loss,
    pub labels: Labels,
    pub seed: u64,
}

impl Run {
    /// Returns all runs of an experiment, seed by seed, so that an incomplete experiment still compares the losses.
    pub fn all(seeds: u64) -> Vec<Self> {
        let mut runs = Vec::new();
        for seed in 0..seeds {
            for labels in Labels::ALL {
                runs.extend(Loss::ALL.map(|loss| Self { loss, labels, seed }));
            }
        }
        runs
    }

    pub fn file_name(self) -> String {
        format!("{}-{}-seed{}", self.labels.short_name(), self.loss.short_name(), self.seed)
    }
}
