//! The accuracy that is promised, where it is hard to keep.

mod support;

use ols::reference::Reference;
use ols::{Batch, Criterion, DType, Options, Reduction, TensorMut, TensorRef, Update, f16};
use support::buffer::Buffer;
use support::hex::Hex;
use support::life::*;
use support::model::{CaseBatch, Logits, Name, Targets, View};
use support::runner::State;

/// One logit 17 above many equal ones: their sum in plain f32 is wrong.
#[test]
fn peaked_rows_are_accurate() {
    let classes = 4096;
    let options = Options::new(classes).alpha(1.0).reduction(Reduction::None);
    let mut reference = Reference::new(&options).unwrap();
    let mut criterion = Criterion::new(&options).unwrap();
    for (place, dtype) in [(0, DType::F32), (1, DType::F64), (4095, DType::F32), (2047, DType::Bf16), (77, DType::F16)] {
        for height in [17.0, 8.25, 30.0] {
            let mut set = vec![Hex(0.5); 2 * classes];
            (set[place], set[classes + place]) = (Hex(0.5 + height), Hex(0.5 + height));
            let stored = Buffer::numbers(dtype, &View::new(&[2 * classes]), &set.iter().map(|value| value.0).collect::<Vec<_>>());
            let batch = CaseBatch {
                logits: Logits {
                    dtype: Name(dtype),
                    view: View::new(&[2, classes]),
                    seed: 0,
                    exponent: 0,
                    absolute: false,
                    raised: vec![],
                    set: (0..2 * classes).map(|index| (index, Hex(stored.get(index)))).collect(),
                },
                targets: Targets {
                    dtype: Name(DType::I64),
                    view: View::new(&[2]),
                    values: vec![place as i64, (place as i64 + 1) % classes as i64],
                },
                target_offset: 0,
                sample_weights: None,
                targets2: None,
                lam: None,
                grad_loss: None,
            };
            check_pass(&mut reference, &mut criterion, &batch, Update::None).unwrap();
        }
    }
}

/// The mean of many samples is as accurate as a sample; and no bit of it depends on the threads.
#[test]
fn many_samples_are_accurate_on_any_number_of_threads() {
    let (n, classes) = (50_000, 3);
    let (logits, targets) = plain_batch(n, classes, 13);
    let mut reference = Reference::new(&Options::new(classes)).unwrap();
    let wide: Vec<f64> = logits.iter().map(|&z| z.into()).collect();
    let expected = reference.forward(&ols::reference::Samples::new(&wide, &targets)).unwrap();
    let mut first = None;
    for threads in [1, 2, 3, 16, 0] {
        let mut criterion = Criterion::new(&Options::new(classes).threads(threads)).unwrap();
        let (loss, gradient) = step(&mut criterion, &logits, &targets);
        assert!((f64::from(loss) - expected.loss[0]).abs() <= 2e-6 * expected.loss[0].max(1.0), "{loss} differs from {}", expected.loss[0]);
        assert_eq!(criterion.counts(), reference.counts);
        let found = (loss.to_bits(), gradient.iter().map(|g| g.to_bits()).collect::<Vec<_>>(), State::of(&criterion));
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{threads} threads");
    }
}

/// f16 gradients of a scaled loss are rounded once: what is too small for f16 before it is scaled is there afterwards.
#[test]
fn loss_scaling_reaches_small_gradients() {
    let logits = [f16::from_f32(18.0), f16::from_f32(0.0)];
    let scale = [65536f32];
    let mut gradient = [f16::ZERO; 2];
    let mut criterion = Criterion::new(&Options::new(2).alpha(1.0)).unwrap();
    let batch = Batch::new(TensorRef::new(&logits, &[1, 2]).unwrap(), TensorRef::new(&[0i64], &[1]).unwrap());
    let batch = batch.grad_loss(TensorRef::scalar(&scale[0]));
    criterion.forward(&batch, None, Some(TensorMut::new(&mut gradient, &[1, 2]).unwrap())).unwrap();
    let expected = 65536.0 / (1.0 + 18f64.exp());
    assert!((f64::from(gradient[1]) - expected).abs() <= 2f64.powi(-11) * expected, "{gradient:?} {expected}");
}

/// The mean does not change when all weights are scaled, whatever the scale.
#[test]
fn tiny_and_huge_weights_are_weights() {
    let (logits, targets) = plain_batch(6, 3, 5);
    let run = |class_weight: f64, sample_weight: f64| {
        let mut criterion = Criterion::new(&Options::new(3).class_weights(vec![class_weight, 2.0 * class_weight, class_weight])).unwrap();
        let weights: Vec<f64> = (0..6).map(|n| sample_weight * f64::from(1 + n % 2)).collect();
        let (mut loss, mut gradient) = (0f32, vec![0f32; logits.len()]);
        let batch = Batch::new(TensorRef::new(&logits, &[6, 3]).unwrap(), targets[..].into()).sample_weights(weights[..].into());
        let grad = TensorMut::new(&mut gradient, &[6, 3]).unwrap();
        criterion.forward(&batch, Some(TensorMut::scalar(&mut loss)), Some(grad)).unwrap();
        (loss, gradient)
    };
    let (loss, gradient) = run(1.0, 1.0);
    for (class_weight, sample_weight) in [(1e-40, 1.0), (1e-46, 1.0), (1e39, 1.0), (1.0, 1e-310), (1.0, 1e200), (1e-150, 1e-100)] {
        let (scaled_loss, scaled_gradient) = run(class_weight, sample_weight);
        assert!((scaled_loss - loss).abs() <= 2e-6, "{class_weight:e} {sample_weight:e}: {scaled_loss} {loss}");
        for (scaled, plain) in scaled_gradient.iter().zip(&gradient) {
            assert!((scaled - plain).abs() <= 1e-6, "{class_weight:e} {sample_weight:e}: {scaled} {plain}");
        }
    }
}
