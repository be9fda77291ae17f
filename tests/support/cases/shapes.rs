//! Numbers of classes and samples, and views of every kind.

use ols::DType::{F32, F64};
use ols::{Options, Reduction, Update};

use super::LOGITS;
use super::builder::{batch, case};
use crate::support::model::{Action, Case, CaseBatch, Name, Named, View};

pub fn sizes() -> Vec<Case> {
    let mut cases = vec![];
    for (which, classes) in [2, 3, 7, 8, 15, 16, 17, 31, 33, 100, 1000, 1025].into_iter().enumerate() {
        for dtype in LOGITS {
            let n = if classes >= 1000 { 3 } else { [5, 7, 9][which % 3] };
            cases.push(
                case(format!("k{classes}-{}", dtype.name()), "forward, backward and the next epoch's loss", Options::new(classes))
                    .batch(batch(dtype, &[n, classes], classes as u64))
                    .forward(0)
                    .backward(0)
                    .next_epoch()
                    .update(0, Update::None)
                    .end(),
            );
        }
    }
    for dtype in LOGITS {
        for (n, reduction) in
            [(0, Reduction::Mean), (0, Reduction::None), (1, Reduction::Mean), (1, Reduction::None), (257, Reduction::Mean)]
        {
            let name = format!("n{n}-{}-{}", reduction.name(), dtype.name());
            let why = "an empty batch, a single sample, more samples than a block";
            cases.push(
                case(name, why, Options::new(10).reduction(reduction)).batch(batch(dtype, &[n, 10], 4)).forward(0).next_epoch().end(),
            );
        }
    }
    cases
}

pub fn layouts() -> Vec<Case> {
    let mut cases = vec![];
    for (which, dtype) in LOGITS.into_iter().enumerate() {
        for reduction in [Reduction::Mean, Reduction::None] {
            let (n, classes, inner) = (3, 5, 4);
            let options = Options::new(classes).reduction(reduction);
            let name = |kind: &str| format!("{kind}-{}-{}", reduction.name(), dtype.name());
            let image = batch(dtype, &[n, classes, inner], 80 + which as u64);
            let with = |logits: View| {
                let mut batch = image.clone();
                batch.logits.view = logits;
                batch
            };
            let flat = batch(dtype, &[n, classes], 84);
            let flat_with = |logits: View| {
                let mut batch = flat.clone();
                batch.logits.view = logits;
                batch
            };
            let shape = [n, classes, inner];
            let views = [
                ("inner", with(View::new(&shape))),
                ("class-last", with(View::strided(&shape, &[20, 1, 5]))),
                ("class-first", with(View::strided(&shape, &[4, 12, 1]))),
                ("padded-inner", with(View::strided(&shape, &[37, 7, 1]).padded(3, 2))),
                ("padded-rows", flat_with(View::strided(&[n, classes], &[9, 1]).padded(1, 6))),
                ("columns", flat_with(View::strided(&[n, classes], &[1, 3]))),
                ("every-second", flat_with(View::strided(&[n, classes], &[11, 2]))),
                ("inner-1", with_shape(&flat, &[n, classes, 1])),
            ];
            for (kind, batch) in views {
                let view = batch.logits.view.clone();
                let loss = match reduction {
                    Reduction::None => View::new(&batch.targets.view.shape),
                    _ => View::new(&[]),
                };
                // The gradient in the layout of the logits, then row-major, then in place.
                let forward = |grad: Option<View>| Action::Forward {
                    batch: 0,
                    update: Name(Update::Add),
                    loss: Some(loss.clone()),
                    in_place: grad.is_none(),
                    grad,
                };
                cases.push(
                    case(name(kind), "logits and gradient in this layout; a row-major gradient; in place", options.clone())
                        .batch(batch)
                        .step(forward(Some(view)))
                        .forward(0)
                        .step(forward(None))
                        .backward(0)
                        .next_epoch()
                        .end(),
                );
            }
            // Inputs may run backwards or repeat.
            let backwards = with(View::strided(&shape, &[-20, -4, -1]));
            let mut repeated = with(View::strided(&shape, &[0, 4, 1]));
            repeated.logits.raised.clear();
            repeated.targets.view = View::strided(&[n, inner], &[0, 1]);
            let first = repeated.targets.values[..inner].to_vec();
            repeated.targets.values = first.repeat(n);
            repeated = repeated.weighing(F32, &[0.5]);
            repeated.sample_weights.as_mut().unwrap().view = View::strided(&[n, inner], &[0, 0]);
            cases.push(case(name("backwards"), "negative strides of the logits", options.clone()).batch(backwards).forward(0).end());
            cases.push(
                case(name("repeated"), "strides of 0: every image is the same one", options.clone()).batch(repeated).forward(0).end(),
            );
            // Everything else with strides of its own.
            let mut all = image.clone().weighing(F32, &[1.0, 0.5, 0.0, 2.0, 0.25]).mixed(F64, &[0.75, 0.5, 0.25, 0.0, 1.0]).target(2, -100);
            if reduction == Reduction::None {
                all = all.grad_loss(F32, &[1.0, -2.0, 0.5]);
                all.grad_loss.as_mut().unwrap().view = View::strided(&[n, inner], &[2, 7]);
            }
            all.targets.view = View::strided(&[n, inner], &[1, 3]);
            all.targets2.as_mut().unwrap().view = View::strided(&[n, inner], &[9, 2]).padded(1, 1);
            all.sample_weights.as_mut().unwrap().view = View::strided(&[n, inner], &[-4, -1]);
            all.lam.as_mut().unwrap().view = View::strided(&[n, inner], &[4, -1]);
            let loss = if reduction == Reduction::None { View::strided(&[n, inner], &[2, 6]).padded(2, 2) } else { View::new(&[]) };
            let grad = Some(View::strided(&shape, &[60, 12, -3]));
            cases.push(
                case(name("all-strided"), "targets, weights, lam, grad_loss, loss and gradient with strides of their own", options)
                    .batch(all)
                    .step(Action::Forward { batch: 0, update: Name(Update::Add), loss: Some(loss), grad, in_place: false })
                    .backward(0)
                    .end(),
            );
        }
    }
    cases
}

fn with_shape(batch: &CaseBatch, shape: &[usize; 3]) -> CaseBatch {
    let mut batch = batch.clone();
    batch.logits.view = View::new(shape);
    batch.targets.view = View::new(&[shape[0], shape[2]]);
    batch
}
