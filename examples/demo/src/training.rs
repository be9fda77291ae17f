//! A training run, step by step.

use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::{Part, Split};
use crate::loss::{Labels, Run};
use crate::metrics::Predictions;
use crate::network::Network;
use crate::noise::with_wrong_labels;
use crate::optimiser::{Optimiser, cosine};
use crate::random::{self, Purpose};
use crate::settings::Settings;
use ols::Criterion;
use rand::seq::SliceRandom;

/// The state of a run at the end of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Mean of the criterion over the epoch.
    pub loss: f64,
    /// Accuracy with respect to the training labels as given, including wrong ones.
    pub train_accuracy: f64,
    /// Fraction of the wrong training labels that the network has memorised; `None` without wrong labels.
    pub wrong_learned: Option<f64>,
    /// Accuracy with respect to the validation labels as given, which are as noisy as the training labels.
    pub validation_accuracy: f64,
    pub test_accuracy: f64,
    /// Negative log-likelihood of the test labels, in nats.
    pub test_nll: f64,
    /// Expected calibration error on the test images.
    pub test_ece: f64,
}

/// Images and labels in the form that the network expects.
struct Examples {
    images: Tensor,
    labels: Vec<i64>,
}

impl Examples {
    fn new(part: &Part, labels: Vec<i64>) -> Result<Self> {
        let pixels: Vec<f32> = (0..part.len()).flat_map(|i| part.image(i)).copied().collect();
        Ok(Self { images: Tensor::from_vec(pixels, (part.len(), part.images.size()), &Device::Cpu)?, labels })
    }
}

/// What a checkpoint must contain besides the tensors and the criterion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub epoch: usize,
    /// Number of completed batches of this epoch.
    pub batch: usize,
    /// Sum of the loss over the images of these batches.
    pub loss_sum: f64,
    pub history: Vec<Epoch>,
}

/// A run in progress.
pub struct Training {
    run: Run,
    settings: Settings,
    classes: usize,
    train: Examples,
    true_labels: Vec<i64>,
    validation: Examples,
    test: Examples,
    pub network: Network,
    pub optimiser: Optimiser,
    pub criterion: Criterion,
    pub progress: Progress,
    /// The order of the images in this epoch.
    order: Vec<u32>,
}

impl Training {
    pub fn new(run: Run, split: &Split, classes: usize, settings: &Settings) -> Result<Self> {
        let true_labels = split.train.classes();
        let mut train_labels = true_labels.clone();
        let mut validation_labels = split.validation.classes();
        if run.labels == Labels::Noisy {
            let generator = &mut random::generator(run.seed, Purpose::WrongLabels);
            train_labels = with_wrong_labels(&train_labels, classes, settings.noise, generator);
            validation_labels = with_wrong_labels(&validation_labels, classes, settings.noise, generator);
        }
        let sizes = [split.train.images.size(), settings.hidden, settings.hidden, classes];
        let network = Network::new(&sizes, &mut random::generator(run.seed, Purpose::Weights))?;
        let mut training = Self {
            run,
            settings: settings.clone(),
            classes,
            train: Examples::new(&split.train, train_labels)?,
            true_labels,
            validation: Examples::new(&split.validation, validation_labels)?,
            test: Examples::new(&split.test, split.test.classes())?,
            optimiser: Optimiser::new(&network, settings.weight_decay)?,
            criterion: Criterion::new(&run.loss.options(classes, settings))?,
            network,
            progress: Progress::default(),
            order: Vec::new(),
        };
        training.draw_order();
        Ok(training)
    }

    /// Continues from the progress of a checkpoint.
    pub fn set_progress(&mut self, progress: Progress) {
        self.progress = progress;
        self.draw_order();
    }

    fn draw_order(&mut self) {
        self.order = (0..self.train.labels.len() as u32).collect();
        self.order.shuffle(&mut random::generator(self.run.seed, Purpose::Order(self.progress.epoch)));
    }

    pub fn batches(&self) -> usize {
        self.order.len().div_ceil(self.settings.batch)
    }

    pub fn is_finished(&self) -> bool {
        self.progress.epoch == self.settings.epochs
    }

    /// Trains on the next batch, and ends the epoch after its last one.
    pub fn step(&mut self) -> Result<()> {
        let begin = self.progress.batch * self.settings.batch;
        let end = (begin + self.settings.batch).min(self.order.len());
        let indices = self.order[begin..end].to_vec();
        let targets: Vec<i64> = indices.iter().map(|i| self.train.labels[*i as usize]).collect();
        let indices = Tensor::from_vec(indices, targets.len(), &Device::Cpu)?;

        let logits = self.network.logits(&self.train.images.index_select(&indices, 0)?)?;
        let values = logits.flatten_all()?.to_vec1::<f32>()?;
        let mut gradient = vec![0f32; values.len()];
        let loss = self.criterion.loss_and_gradient(&values, &targets, &mut gradient)?;
        // The gradient of sum(logits * g) with respect to the logits is g; in this way the criterion's gradient enters
        // the chain rule.
        let gradient = Tensor::from_vec(gradient, logits.shape(), &Device::Cpu)?;
        let gradients = (logits * gradient)?.sum_all()?.backward()?;

        let step = self.progress.epoch * self.batches() + self.progress.batch;
        let learning_rate = cosine(self.settings.learning_rate, step, self.settings.epochs * self.batches());
        self.optimiser.step(&self.network, &gradients, learning_rate)?;

        self.progress.loss_sum += f64::from(loss) * targets.len() as f64;
        self.progress.batch += 1;
        if self.progress.batch == self.batches() {
            self.end_epoch()?;
        }
        Ok(())
    }

    fn end_epoch(&mut self) -> Result<()> {
        if self.run.loss.learns_soft_labels() {
            self.criterion.next_epoch()?;
        }
        let train = self.predict(&self.train.images)?;
        let test = self.test_predictions()?;
        let (mut wrong, mut wrong_learned) = (0, 0);
        for ((class, _), (label, true_label)) in train.top().zip(self.train.labels.iter().zip(&self.true_labels)) {
            wrong += usize::from(label != true_label);
            wrong_learned += usize::from(label != true_label && class == *label);
        }
        self.progress.history.push(Epoch {
            loss: self.progress.loss_sum / self.train.labels.len() as f64,
            train_accuracy: train.accuracy(&self.train.labels),
            wrong_learned: (wrong > 0).then(|| f64::from(wrong_learned as u32) / wrong as f64),
            validation_accuracy: self.predict(&self.validation.images)?.accuracy(&self.validation.labels),
            test_accuracy: test.accuracy(&self.test.labels),
            test_nll: test.nll(&self.test.labels),
            test_ece: test.calibration(&self.test.labels).error(),
        });
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.progress.loss_sum = 0.0;
        self.draw_order();
        Ok(())
    }

    pub fn test_predictions(&self) -> Result<Predictions> {
        self.predict(&self.test.images)
    }

    fn predict(&self, images: &Tensor) -> Result<Predictions> {
        let logits = self.network.logits(images)?.detach();
        Ok(Predictions::from_logits(logits.flatten_all()?.to_vec1()?, self.classes))
    }

    /// Returns the soft labels, one row per class.
    pub fn soft_labels(&self) -> Vec<Vec<f32>> {
        (0..self.classes).map(|class| self.criterion.soft_label(class).to_vec()).collect()
    }
}
