//! What must hold for every batch: the library against the executable specification, and against itself.
//!
//! The cases are the same on every run. `PROPTEST_RNG_SEED=17` chooses others, `PROPTEST_CASES=10000` more.

mod support;

use ols::reference::Reference;
use ols::{Criterion, DType, EmptyClass, ErrorKind, Initial, Mode, Reduction, Update};
use proptest::prelude::*;
use support::buffer::Buffer;
use support::hex::Hex;
use support::life::*;
use support::model::{CaseBatch, CaseReport, Name, Numbers, View};
use support::oracle::{gradient_error, loss_error, rounding};
use support::runner::{self, Outputs, State, Tensors, forward};

proptest! {
    #![proptest_config(config(150))]

    /// Everything against the reference, over a few epochs of a few batches.
    #[test]
    fn the_library_does_what_the_reference_does(life in life(3, 2), evaluation in any::<bool>()) {
        let (options, batches) = life.parts();
        let mut reference = Reference::new(&options).unwrap();
        let mut criterion = Criterion::new(&options).unwrap();
        for epoch in 0..2 {
            let mode = if epoch == 1 && evaluation { Mode::Eval } else { Mode::Train };
            reference.mode = mode;
            criterion.set_mode(mode);
            for batch in &batches {
                check_pass(&mut reference, &mut criterion, batch, Update::Add)?;
                check_pass(&mut reference, &mut criterion, batch, Update::None)?;
            }
            check_statistics(&reference, &criterion, 2f64.powi(-20))?;
            // From here on the statistics of both are the same ones.
            let classes = options.classes;
            reference.sums = (0..classes).flat_map(|class| criterion.sums(class).to_vec()).collect();
            let (expected, found) = (reference.next_epoch(), criterion.next_epoch().unwrap());
            prop_assert_eq!(CaseReport::from(found), CaseReport::from(expected));
            prop_assert_eq!(criterion.report(), found);
            prop_assert_eq!(criterion.epoch(), epoch + 1);
            for class in 0..classes {
                prop_assert_eq!(criterion.soft_label(class), reference.soft_label(class), "row {}", class);
                prop_assert!(criterion.sums(class).iter().all(|&sum| sum == 0));
            }
            let rows = [found.rows_kept, found.rows_uniform, found.rows_initial, found.rows_one_hot, found.rows_zero, found.rows_frozen];
            prop_assert_eq!(found.rows_measured + rows.iter().sum::<i64>(), classes as i64);
        }
    }

    /// Given probabilities count as in the reference, to the unit.
    #[test]
    fn given_probabilities_count_exactly(life in life(3, 0), nan in any::<bool>()) {
        let (options, batches) = life.parts();
        let mut reference = Reference::new(&options).unwrap();
        let mut criterion = Criterion::new(&options).unwrap();
        for (number, mut batch) in batches.into_iter().enumerate() {
            let dtype = batch.logits.dtype.0;
            for (index, value) in &mut batch.logits.set {
                let view = View::new(&[1]);
                // Every third one lies between two units.
                let between = ((*index % 64) as f64 + 0.5) * 2f64.powi(-30);
                let p = if *index % 3 == 0 { between } else { unit(number as u64, *index) };
                *value = Hex(Buffer::numbers(dtype, &view, &[p]).get(0));
            }
            if nan && !batch.logits.set.is_empty() {
                batch.logits.set[0].1 = Hex(f64::NAN);
            }
            let rows = batch.rows();
            for update in [Update::Add, Update::None, Update::Add, Update::TakeBack] {
                reference.accumulate(&rows.samples(update)).unwrap();
                runner::accumulate(&mut criterion, &batch, update).unwrap();
                check_statistics(&reference, &criterion, 0.0)?;
                prop_assert_eq!(State::of(&criterion).sums, reference.sums.clone());
            }
        }
    }

    /// A row's gradient sums to 0, and no loss is negative.
    #[test]
    fn gradients_sum_to_zero(life in life(2, 0)) {
        let (mut options, batches) = life.parts();
        options.reduction = Reduction::None;
        let mut criterion = Criterion::new(&options).unwrap();
        for batch in &batches {
            let mut batch = batch.clone();
            batch.grad_loss = None;
            let outputs = pass(&mut criterion, &batch, Update::Add);
            let (loss, view) = outputs.loss.as_ref().unwrap();
            prop_assert!(loss.values(view).iter().all(|&loss| loss >= 0.0));
            let (grad, view) = outputs.grad.as_ref().unwrap();
            let mut rows = vec![(0.0, 0.0); batch.targets.values.len()];
            for (value, place) in grad.values(view).into_iter().zip(batch.row_order()) {
                rows[place / options.classes].0 += value;
                rows[place / options.classes].1 += value.abs();
            }
            let dtype = batch.logits.dtype.0;
            for (sum, size) in rows {
                let tolerance = 2.0 * options.classes as f64 * (gradient_error(dtype) + rounding(dtype).1) + rounding(dtype).0 * size;
                prop_assert!(sum.abs() <= tolerance, "{sum:e} of {size:e}");
            }
        }
    }

    /// Backward gives the gradient that forward gave, in place or not; whatever else is asked for, and in every layout.
    #[test]
    fn every_way_to_a_result_gives_the_same_bits(life in life(1, 2), threads in 1..5usize) {
        let (options, batches) = life.parts();
        let batch = &batches[0];
        let mut criterion = Criterion::new(&options).unwrap();
        let both = pass(&mut criterion, batch, Update::Add);
        let state = State::of(&criterion);
        let (loss, grad) = (loss_view(&options, batch), grad_view(batch));

        let (result, backward) = runner::backward(&mut criterion, batch, grad.as_ref().unwrap());
        result.unwrap();
        prop_assert_eq!(bits(&backward)[0].clone(), bits(&both)[1].clone());
        prop_assert_eq!(&State::of(&criterion), &state);

        let mut contiguous = batch.clone();
        contiguous.logits.view = View::new(&batch.logits.view.shape);
        contiguous.targets.view = View::new(&batch.targets.view.shape);
        let own = Some(batch.logits.view.clone());
        let ways = [
            (batch, &loss, &None, false),
            (batch, &None, &grad, false),
            (batch, &None, &None, false),
            (batch, &loss, &own, false),
            (batch, &loss, &None, true),
            (&contiguous, &loss, &grad, false),
            (&contiguous, &loss, &None, true),
        ];
        for (batch, loss, grad, in_place) in ways {
            let mut other = Criterion::new(&options.clone().threads(threads)).unwrap();
            let (result, outputs) = forward(&mut other, batch, Update::Add, loss, grad, in_place);
            result.unwrap();
            for (found, expected) in [(&outputs.loss, &both.loss), (&outputs.grad, &both.grad)] {
                if let (Some((found, view)), Some((expected, row_major))) = (found, expected) {
                    prop_assert_eq!(found.bits_of(view), expected.bits_of(row_major));
                }
            }
            prop_assert_eq!(&State::of(&other), &state);
        }
    }

    /// A row's result does not depend on its neighbours, and the statistics not on order, split or threads.
    #[test]
    fn neighbours_order_and_threads_change_no_bit(life in life(1, 2), threads in 1..5usize) {
        let (mut options, batches) = life.parts();
        options.reduction = Reduction::None;
        samples_alone_give_the_same_bits(&options, &batches[0], threads)?;
    }

}

/// As `life`, with batches that fill vectors of samples, and numbers of classes on both sides of the kernels' limits (128, 2048).
fn large_life() -> impl Strategy<Value = Life> {
    let classes = prop_oneof![2 => 2..20usize, 3 => 110..140usize, 1 => Just(257usize), 2 => 2040..2060usize];
    (life(1, 2), classes, 15..40usize, prop::option::of(1..20usize)).prop_map(|(life, classes, n, inner)| {
        let weights = life.options.class_weights.map(|weights| weights.iter().copied().cycle().take(classes).collect::<Vec<_>>());
        let options = ols::Options::new(classes).alpha(life.options.alpha).reduction(life.options.reduction).class_weights(weights);
        let shapes = life.shapes.into_iter().map(|shape| Shape { n, inner: shape.inner.and(inner), ..shape }).collect();
        Life { options, shapes }
    })
}

proptest! {
    #![proptest_config(config(40))]

    /// The two properties above, for larger batches.
    #[test]
    fn large_batches_do_what_the_reference_does_and_what_single_samples_do(life in large_life(), threads in 1..5usize) {
        let (mut options, batches) = life.parts();
        let mut reference = Reference::new(&options).unwrap();
        check_pass(&mut reference, &mut Criterion::new(&options).unwrap(), &batches[0], Update::Add)?;
        options.reduction = Reduction::None;
        samples_alone_give_the_same_bits(&options, &batches[0], threads)?;
    }
}

proptest! {
    #![proptest_config(config(150))]

    /// What was added and is taken back was never there; more cannot be taken back.
    #[test]
    fn taking_back_is_exact(life in life(2, 2), evaluation in any::<bool>()) {
        let (options, batches) = life.parts();
        let mut criterion = Criterion::new(&options).unwrap();
        pass(&mut criterion, &batches[0], Update::Add);
        let before = State::of(&criterion);
        let batch = batches.last().unwrap();
        let added = pass(&mut criterion, batch, Update::Add);
        if evaluation {
            criterion.set_mode(Mode::Eval);
        }
        let taken = pass(&mut criterion, batch, Update::TakeBack);
        prop_assert_eq!(bits(&taken), bits(&added));
        prop_assert_eq!(State::of(&criterion), before);

        pass(&mut criterion, &batches[0], Update::TakeBack);
        let state = State::of(&criterion);
        prop_assert!(state.counts.iter().chain(&state.sums).all(|&value| value == 0) && state.samples_skipped == 0);
        let mut counted = Criterion::new(&options).unwrap();
        pass(&mut counted, batch, Update::Add);
        let (loss, grad) = (loss_view(&options, batch), grad_view(batch));
        let (result, outputs) = forward(&mut criterion, batch, Update::TakeBack, &loss, &grad, false);
        if counted.counts().iter().any(|&count| count > 0) {
            prop_assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidState);
            prop_assert_eq!(outputs.bits(), untouched(batch, &loss, &grad).bits());
        } else {
            result.unwrap();
        }
        prop_assert_eq!(State::of(&criterion), state);
    }

    /// A soft label that was measured is a distribution.
    #[test]
    fn measured_soft_labels_sum_to_one(life in life(3, 1)) {
        let (mut options, batches) = life.parts();
        (options.momentum, options.freeze_above, options.empty_class) = (0.0, None, EmptyClass::Keep);
        let mut criterion = Criterion::new(&options).unwrap();
        for batch in &batches {
            pass(&mut criterion, batch, Update::Add);
        }
        let counts = criterion.counts().to_vec();
        criterion.next_epoch().unwrap();
        for class in (0..options.classes).filter(|&class| counts[class] >= options.min_count) {
            let sum: f64 = criterion.soft_label(class).iter().map(|&value| f64::from(value)).sum();
            prop_assert!((sum - 1.0).abs() <= 1e-6, "{sum}");
        }
    }

    /// A criterion that was saved and loaded goes on as the one that never stopped.
    #[test]
    fn a_resumed_run_continues_bitwise(life in life(3, 1), alpha in 0.0..=1.0f64) {
        let (options, batches) = life.parts();
        let mut straight = Criterion::new(&options).unwrap();
        let mut resumed = Criterion::new(&options).unwrap();
        for step in 0..3 {
            for batch in &batches {
                prop_assert_eq!(bits(&pass(&mut straight, batch, Update::Add)), bits(&pass(&mut resumed, batch, Update::Add)));
                runner::save_load(&mut resumed).unwrap();
                prop_assert_eq!(State::of(&straight), State::of(&resumed));
                prop_assert_eq!(straight.epoch(), resumed.epoch());
                prop_assert_eq!(straight.to_bytes().unwrap(), resumed.to_bytes().unwrap());
            }
            if step == 1 {
                straight.set_alpha(alpha).unwrap();
                resumed.set_alpha(alpha).unwrap();
            } else {
                prop_assert_eq!(straight.next_epoch().unwrap(), resumed.next_epoch().unwrap());
            }
        }
    }

    /// With alpha 1 the loss is cross entropy; with alpha 0 it is label smoothing in the first epoch.
    #[test]
    fn the_ends_of_alpha(life in life(1, 0), eps in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], hard in any::<bool>()) {
        let (mut options, batches) = life.parts();
        options.reduction = Reduction::None;
        options.alpha = f64::from(hard);
        options.initial = Initial::Smoothing(eps);
        options.class_weights = None;
        let mut batch = batches[0].clone();
        (batch.sample_weights, batch.targets2, batch.lam, batch.grad_loss) = (None, None, None, None);
        let mut criterion = Criterion::new(&options).unwrap();
        let outputs = pass(&mut criterion, &batch, Update::Add);
        let (classes, dtype) = (options.classes, batch.logits.dtype.0);
        let rows = batch.rows();
        for (sample, row) in rows.logits.chunks(classes).enumerate() {
            let mut expected = 0.0;
            if batch.targets.values[sample] != options.ignore_index {
                let class = (batch.targets.values[sample] - batch.target_offset) as usize;
                let largest = row.iter().copied().fold(f64::MIN, f64::max);
                let log_sum = row.iter().map(|z| (z - largest).exp()).sum::<f64>().ln();
                for (k, z) in row.iter().enumerate() {
                    let (own, other) = if hard { (1.0, 0.0) } else { (1.0 - eps, eps / (classes as f64 - 1.0)) };
                    expected += (if k == class { own } else { other }) * (log_sum + largest - z);
                }
            }
            let found = outputs.loss.as_ref().unwrap().0.get(sample);
            // The sum here is a plain one, and S holds the smoothing as f32.
            let tolerance = 2.0 * loss_error(dtype) + if hard { 0.0 } else { 2f64.powi(-23) };
            prop_assert!((found - expected).abs() <= tolerance * expected.max(1.0), "{found} differs from {expected}");
        }
    }

    /// A batch that breaks a rule changes nothing.
    #[test]
    fn errors_change_nothing(life in life(2, 1), what in 0..6u8, place in 0..100usize) {
        let (options, batches) = life.parts();
        let mut bad = batches.last().unwrap().clone();
        let n = bad.targets.values.len();
        if n == 0 {
            return Ok(());
        }
        let one = |value: f64| {
            let mut values = vec![Hex(0.5); n];
            values[place % n] = Hex(value);
            Some(Numbers { dtype: Name(DType::F64), view: View::new(&bad.targets.view.shape), values })
        };
        let kind = match what {
            0 | 1 => {
                bad.targets.values[place % n] = if what == 0 { options.classes as i64 + bad.target_offset } else { bad.target_offset - 1 };
                if bad.targets.values[place % n] < 0 {
                    bad.targets.dtype = Name(DType::I64);
                }
                if bad.targets.values[place % n] > 255 {
                    bad.targets.dtype = Name(DType::I64);
                }
                ErrorKind::TargetOutOfRange
            }
            2 | 3 => {
                bad.sample_weights = one(if what == 2 { -0.5 } else { f64::NAN });
                ErrorKind::InvalidArgument
            }
            _ => {
                bad.targets2 = Some(bad.targets.clone());
                bad.lam = one(if what == 4 { 1.25 } else { -1e-300 });
                ErrorKind::InvalidArgument
            }
        };
        let mut criterion = Criterion::new(&options).unwrap();
        pass(&mut criterion, &batches[0], Update::Add);
        let before = criterion.to_bytes().unwrap();
        let (loss, grad) = (loss_view(&options, &bad), grad_view(&bad));
        for in_place in [false, true] {
            let (result, outputs) = forward(&mut criterion, &bad, Update::Add, &loss, if in_place { &None } else { &grad }, in_place);
            prop_assert_eq!(result.unwrap_err().kind(), kind);
            let mut untouched = untouched(&bad, &loss, &grad);
            if in_place {
                untouched.grad = Some((Tensors::new(&bad).logits, bad.logits.view.clone()));
            }
            prop_assert_eq!(outputs.bits(), untouched.bits());
        }
        let (result, outputs) = runner::backward(&mut criterion, &bad, grad.as_ref().unwrap());
        prop_assert_eq!(result.unwrap_err().kind(), kind);
        prop_assert_eq!(outputs.bits(), untouched(&bad, &None, &grad).bits());
        prop_assert!(runner::accumulate(&mut criterion, &bad, Update::Add).is_err());
        prop_assert_eq!(criterion.to_bytes().unwrap(), before);
    }
}

/// The outputs of a call that wrote nothing.
fn untouched(batch: &CaseBatch, loss: &Option<View>, grad: &Option<View>) -> Outputs {
    let dtype = batch.logits.dtype.0;
    let loss_dtype = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    Outputs {
        loss: loss.clone().map(|view| (Buffer::unused(loss_dtype, view.length()), view)),
        grad: grad.clone().map(|view| (Buffer::unused(dtype, view.length()), view)),
    }
}

/// Each sample by itself, in the other order, gives the bits that it gives in the batch; together they leave the same statistics.
fn samples_alone_give_the_same_bits(options: &ols::Options, batch: &CaseBatch, threads: usize) -> Result<(), TestCaseError> {
    let mut batch = batch.clone();
    batch.grad_loss = None;
    let mut whole = Criterion::new(options).unwrap();
    let outputs = pass(&mut whole, &batch, Update::Add);
    let places = batch.row_order();
    let grad = outputs.grad.as_ref().unwrap().0.bits();
    let rows = batch.rows();
    let mut apart = Criterion::new(&options.clone().threads(threads)).unwrap();
    for sample in (0..batch.targets.values.len()).rev() {
        let one = one_sample(&batch, &rows.logits, sample, options.classes);
        let alone = pass(&mut apart, &one, Update::Add);
        prop_assert_eq!(alone.loss.unwrap().0.bits()[0], outputs.loss.as_ref().unwrap().0.bits()[sample]);
        let row: Vec<u64> = (0..grad.len()).filter(|&i| places[i] / options.classes == sample).map(|i| grad[i]).collect();
        prop_assert_eq!(alone.grad.unwrap().0.bits(), row);
    }
    prop_assert_eq!(State::of(&apart), State::of(&whole));
    Ok(())
}

/// One sample of a batch, as a batch of shape (1, K).
fn one_sample(batch: &CaseBatch, rows: &[f64], sample: usize, classes: usize) -> CaseBatch {
    let row = &rows[sample * classes..][..classes];
    let mut one = batch.clone();
    one.logits.view = View::new(&[1, classes]);
    one.logits.set = row.iter().copied().map(Hex).enumerate().collect();
    let view = View::new(&[1]);
    for targets in [Some(&mut one.targets), one.targets2.as_mut()].into_iter().flatten() {
        (targets.view, targets.values) = (view.clone(), vec![targets.values[sample]]);
    }
    for numbers in [one.sample_weights.as_mut(), one.lam.as_mut()].into_iter().flatten() {
        let place = if numbers.values.len() == 1 { 0 } else { sample };
        (numbers.view, numbers.values) = (view.clone(), vec![numbers.values[place]]);
    }
    one
}
