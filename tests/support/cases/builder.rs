//! Puts cases and their batches together.

use ols::DType::{self, I64};
use ols::{ErrorKind, Mode, Options, Reduction, Update};

use crate::support::hex::Hex;
use crate::support::model::{
    Action, Case, CaseBatch, CaseOptions, Expect, Failure, Logits, Name, Numbers, Step, Targets, View, splitmix64,
};

/// Puts a case together.
pub struct Builder(Case);

pub fn case(name: impl Into<String>, why: &str, options: Options) -> Builder {
    let options = CaseOptions::new(&options);
    Builder(Case { name: name.into(), why: why.to_owned(), options, error: None, batches: vec![], steps: vec![] })
}

impl Builder {
    pub fn batch(mut self, batch: CaseBatch) -> Self {
        self.0.batches.push(batch);
        self
    }

    pub fn step(mut self, action: Action) -> Self {
        self.0.steps.push(Step { action, expect: Expect::default() });
        self
    }

    /// The last step fails.
    pub fn fails(mut self, kind: ErrorKind, message: &str) -> Self {
        let message = (!message.is_empty()).then(|| message.to_owned());
        self.0.steps.last_mut().expect("a step").expect.error = Some(Failure { kind: Name(kind), message });
        self
    }

    pub fn loss_view(&self, batch: usize) -> View {
        match self.0.options.reduction.0 {
            Reduction::None => View::new(&self.0.batches[batch].targets.view.shape),
            Reduction::Mean | Reduction::Sum => View::new(&[]),
        }
    }

    pub fn grad_view(&self, batch: usize) -> View {
        View::new(&self.0.batches[batch].logits.view.shape)
    }

    /// Loss, gradient and statistics.
    pub fn forward(self, batch: usize) -> Self {
        self.update(batch, Update::Add)
    }

    pub fn update(self, batch: usize, update: Update) -> Self {
        let (loss, grad) = (Some(self.loss_view(batch)), Some(self.grad_view(batch)));
        self.step(Action::Forward { batch, update: Name(update), loss, grad, in_place: false })
    }

    pub fn in_place(self, batch: usize) -> Self {
        let loss = Some(self.loss_view(batch));
        self.step(Action::Forward { batch, update: Name(Update::Add), loss, grad: None, in_place: true })
    }

    /// Statistics alone.
    pub fn count(self, batch: usize, update: Update) -> Self {
        self.step(Action::Forward { batch, update: Name(update), loss: None, grad: None, in_place: false })
    }

    pub fn loss(self, batch: usize) -> Self {
        let loss = Some(self.loss_view(batch));
        self.step(Action::Forward { batch, update: Name(Update::Add), loss, grad: None, in_place: false })
    }

    pub fn grad(self, batch: usize) -> Self {
        let grad = Some(self.grad_view(batch));
        self.step(Action::Forward { batch, update: Name(Update::Add), loss: None, grad, in_place: false })
    }

    pub fn backward(self, batch: usize) -> Self {
        let grad = self.grad_view(batch);
        self.step(Action::Backward { batch, grad })
    }

    pub fn accumulate(self, batch: usize, update: Update) -> Self {
        self.step(Action::Accumulate { batch, update: Name(update) })
    }

    pub fn next_epoch(self) -> Self {
        self.step(Action::NextEpoch {})
    }

    pub fn mode(self, mode: Mode) -> Self {
        self.step(Action::SetMode { mode: Name(mode) })
    }

    pub fn alpha(self, alpha: f64) -> Self {
        self.step(Action::SetAlpha { alpha: Hex(alpha) })
    }

    pub fn soft_labels(self, values: &[f64]) -> Self {
        self.step(Action::SetSoftLabels { values: values.iter().copied().map(Hex).collect() })
    }

    pub fn save_load(self) -> Self {
        self.step(Action::SaveLoad {})
    }

    pub fn end(self) -> Case {
        self.0
    }

    /// Creation fails.
    pub fn refused(mut self, kind: ErrorKind, message: &str) -> Case {
        self.0.error = Some(Failure { kind: Name(kind), message: Some(message.to_owned()) });
        self.0
    }
}

/// Logits in [-8, 8) and i64 targets among the first `among` classes; three of four samples are classified right.
pub fn batch_among(dtype: DType, shape: &[usize], seed: u64, among: usize) -> CaseBatch {
    let (n, classes, inner) = (shape[0], shape[1], shape.get(2).copied().unwrap_or(1));
    let values: Vec<i64> = (0..n * inner).map(|sample| (splitmix64(seed + 1000, sample as u64) % among as u64) as i64).collect();
    let raised = (0..n * inner)
        .filter(|sample| sample % 4 != 3)
        .map(|sample| (sample / inner * classes + values[sample] as usize) * inner + sample % inner)
        .collect();
    let mut target_shape = shape.to_vec();
    target_shape.remove(1);
    CaseBatch {
        logits: Logits { dtype: Name(dtype), view: View::new(shape), seed, exponent: -4, absolute: false, raised, set: vec![] },
        targets: Targets { dtype: Name(I64), view: View::new(&target_shape), values },
        target_offset: 0,
        sample_weights: None,
        targets2: None,
        lam: None,
        grad_loss: None,
    }
}

pub fn batch(dtype: DType, shape: &[usize], seed: u64) -> CaseBatch {
    batch_among(dtype, shape, seed, shape[1])
}

/// Probabilities in [0, 1), which need not sum to 1.
pub fn probabilities(dtype: DType, shape: &[usize], seed: u64) -> CaseBatch {
    let mut batch = batch(dtype, shape, seed);
    (batch.logits.exponent, batch.logits.absolute) = (-8, true);
    batch
}

impl CaseBatch {
    /// One value per sample, in the shape of the targets.
    pub fn per_sample(&self, dtype: DType, values: &[f64]) -> Option<Numbers> {
        let view = View::new(&self.targets.view.shape);
        let values = (0..view.elements()).map(|sample| Hex(values[sample % values.len()])).collect();
        Some(Numbers { dtype: Name(dtype), view, values })
    }

    pub fn weighing(mut self, dtype: DType, values: &[f64]) -> Self {
        self.sample_weights = self.per_sample(dtype, values);
        self
    }

    /// The second targets are the first ones, one sample further.
    pub fn mixed(mut self, dtype: DType, lam: &[f64]) -> Self {
        let mut second = self.targets.clone();
        if !second.values.is_empty() {
            second.values.rotate_left(1);
        }
        self.targets2 = Some(second);
        self.lam = if lam.len() == 1 { scalar(dtype, lam[0]) } else { self.per_sample(dtype, lam) };
        self
    }

    pub fn grad_loss(mut self, dtype: DType, values: &[f64]) -> Self {
        self.grad_loss = if values.len() == 1 { scalar(dtype, values[0]) } else { self.per_sample(dtype, values) };
        self
    }

    pub fn target(mut self, sample: usize, value: i64) -> Self {
        self.targets.values[sample] = value;
        self
    }

    pub fn target_dtype(mut self, dtype: DType, offset: i64) -> Self {
        for targets in [Some(&mut self.targets), self.targets2.as_mut()].into_iter().flatten() {
            targets.dtype = Name(dtype);
            targets.values.iter_mut().for_each(|value| *value += offset);
        }
        self.target_offset = offset;
        self
    }

    pub fn set(mut self, index: usize, value: f64) -> Self {
        self.logits.set.push((index, Hex(value)));
        self
    }

    /// Sets a whole row of logits of shape (N, K).
    pub fn row(mut self, sample: usize, values: &[f64]) -> Self {
        let classes = self.logits.view.shape[1];
        for class in 0..classes {
            self = self.set(sample * classes + class, values[class % values.len()]);
        }
        self
    }
}

pub fn scalar(dtype: DType, value: f64) -> Option<Numbers> {
    Some(Numbers { dtype: Name(dtype), view: View::new(&[]), values: vec![Hex(value)] })
}
