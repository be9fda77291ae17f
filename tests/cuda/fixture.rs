//! A batch in device memory, with its loss and gradient.

use ols::{DType, Update};

use crate::device::{BatchOnDevice, CudaCriterion, OnDevice};
use crate::support::buffer::Buffer;
use crate::support::life::plain_batch;
use crate::support::model::{CaseBatch, Logits, Name, Targets, View};

/// A batch in which every second sample is classified correctly.
pub fn batch(n: usize, classes: usize, seed: u64) -> CaseBatch {
    let (logits, targets) = plain_batch(n, classes, seed);
    CaseBatch {
        logits: Logits {
            dtype: Name(DType::F32),
            view: View::new(&[n, classes]),
            seed,
            exponent: 0,
            absolute: false,
            raised: vec![],
            set: logits.iter().map(|&z| crate::support::hex::Hex(z.into())).enumerate().collect(),
        },
        targets: Targets { dtype: Name(DType::I64), view: View::new(&[n]), values: targets },
        target_offset: 0,
        sample_weights: None,
        targets2: None,
        lam: None,
        grad_loss: None,
    }
}

pub struct Fixture {
    pub batch: BatchOnDevice,
    pub loss: OnDevice,
    pub grad: OnDevice,
}

impl Fixture {
    pub fn new(n: usize, classes: usize, seed: u64) -> Self {
        let grad = Buffer::unused(DType::F32, n * classes);
        Self {
            batch: BatchOnDevice::new(&batch(n, classes, seed)),
            loss: OnDevice::new(&Buffer::unused(DType::F32, 1), DType::F32, &View::new(&[])),
            grad: OnDevice::new(&grad, DType::F32, &View::new(&[n, classes])),
        }
    }

    pub fn forward(&self, criterion: &mut CudaCriterion, update: Update) {
        let device = criterion.device;
        criterion.enqueue(&self.batch, update, Some(&self.loss.tensor(device)), Some(&self.grad.tensor(device))).unwrap();
    }

    pub fn bits(&self) -> (Vec<u64>, Vec<u64>) {
        (self.loss.back().0.bits(), self.grad.back().0.bits())
    }
}
