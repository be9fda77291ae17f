//! The traps that implementations of this loss fall into, each a test that this one does not.

mod support;

use ols::{Batch, Criterion, DType, EmptyClass, ErrorKind, Initial, Mode, Options, Reduction, TensorMut, TensorRef, Update};
use support::life::*;
use support::runner::State;

fn rows(criterion: &Criterion) -> Vec<Vec<f32>> {
    (0..criterion.options().classes).map(|class| criterion.soft_label(class).to_vec()).collect()
}

#[test]
fn trap_1_an_absent_class_keeps_its_soft_label_and_its_gradient() {
    let mut criterion = Criterion::new(&Options::new(3).alpha(0.0)).unwrap();
    step(&mut criterion, &[3.0, 0.0, 0.0], &[0]);
    let before = rows(&criterion);
    criterion.next_epoch().unwrap();
    assert_eq!(rows(&criterion)[1..], before[1..]);
    // Class 1 had no right answer; at alpha 0 it learns all the same.
    let (loss, gradient) = step(&mut criterion, &[3.0, 0.0, 0.0], &[1]);
    assert!(loss > 1.0 && gradient[1] < -0.5, "{loss} {gradient:?}");
}

#[test]
fn trap_2_ending_an_epoch_twice_or_after_evaluation_keeps_the_soft_labels() {
    for policy in [EmptyClass::Keep, EmptyClass::Uniform, EmptyClass::Initial, EmptyClass::OneHot, EmptyClass::Zero] {
        let (logits, targets) = plain_batch(20, 4, 2);
        let mut criterion = Criterion::new(&Options::new(4).empty_class(policy)).unwrap();
        step(&mut criterion, &logits, &targets);
        criterion.next_epoch().unwrap();
        let before = rows(&criterion);
        assert_eq!(criterion.next_epoch().unwrap().rows_kept, 4);
        criterion.set_mode(Mode::Eval);
        step(&mut criterion, &logits, &targets);
        assert_eq!(criterion.next_epoch().unwrap().samples_accumulated, 0);
        assert_eq!((rows(&criterion), criterion.epoch()), (before, 3), "{policy:?}");
    }
}

#[test]
fn trap_3_a_row_that_is_not_finite_is_seen_and_poisons_nothing() {
    for poison in [f32::NAN, f32::INFINITY] {
        let mut criterion = Criterion::new(&Options::new(3)).unwrap();
        let (loss, gradient) = step(&mut criterion, &[3.0, 0.0, 0.0, 3.0, poison, 0.0], &[0, 1]);
        assert!(loss.is_nan() && gradient[..3].iter().all(|g| g.is_finite()) && gradient[3..].iter().all(|g| g.is_nan()));
        let report = criterion.next_epoch().unwrap();
        assert_eq!((report.samples_accumulated, report.samples_skipped), (1, 1));
        assert!(rows(&criterion).concat().iter().all(|s| s.is_finite()));
        assert!(step(&mut criterion, &[3.0, 0.0, 0.0], &[0]).0.is_finite());
    }
}

/// Doubles the statistics of `criterion`.
fn double(criterion: &mut Criterion) {
    let mut copy = Criterion::new(criterion.options()).unwrap();
    copy.load_bytes(&criterion.to_bytes().unwrap()).unwrap();
    criterion.merge(&copy).unwrap();
}

#[test]
fn trap_4_every_dtype_and_counts_beyond_24_bits() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        let shape = Shape { target_dtype: DType::U8, ..Shape::rows(dtype, 3, 4) };
        let mut criterion = Criterion::new(&Options::new(5)).unwrap();
        let batch = shape.batch(5, criterion.options());
        pass(&mut criterion, &batch, Update::Add);
        assert_eq!(criterion.counts().iter().sum::<i64>(), 2);
    }
    // 2^24 + 1, and a class that is full.
    let mut criterion = Criterion::new(&Options::new(2)).unwrap();
    step(&mut criterion, &[1.0, 0.0], &[0]);
    (0..24).for_each(|_| double(&mut criterion));
    step(&mut criterion, &[1.0, 0.0], &[0]);
    assert_eq!(criterion.counts(), [(1 << 24) + 1, 0]);
    for _ in 0..8 {
        double(&mut criterion);
    }
    assert_eq!(criterion.counts()[0], (1 << 32) + (1 << 8));
    let mut criterion = Criterion::new(&Options::new(2)).unwrap();
    step(&mut criterion, &[1.0, 0.0], &[0]);
    (0..32).for_each(|_| double(&mut criterion));
    let (sums, counts) = (criterion.sums(0).to_vec(), criterion.counts().to_vec());
    assert_eq!(counts, [1 << 32, 0]);
    step(&mut criterion, &[1.0, 0.0], &[0]);
    assert_eq!((criterion.sums(0), criterion.counts()), (&sums[..], &counts[..]));
    assert_eq!(criterion.running().classes_full, 1);
    let report = criterion.next_epoch().unwrap();
    assert_eq!((report.classes_full, report.samples_accumulated), (1, 1 << 32));
    assert!((criterion.soft_label(0)[0] - 1.0 / (1.0 + (-1f32).exp())).abs() < 1e-6);
}

#[test]
fn trap_5_ignored_samples_images_reductions_and_weights() {
    let classes = 5;
    let (logits, mut targets) = plain_batch(8, classes, 5);
    (targets[2], targets[5]) = (-100, -100);
    let keep = |sample: &usize| targets[*sample] != -100;
    let some_logits: Vec<f32> = (0..8).filter(keep).flat_map(|sample| logits[sample * classes..][..classes].to_vec()).collect();
    let some_targets: Vec<i64> = targets.iter().copied().filter(|&target| target != -100).collect();
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let options = Options::new(classes).reduction(reduction).class_weights(vec![1.0, 0.5, 0.25, 2.0, 0.0]);
        let (mut all, mut some) = (Criterion::new(&options).unwrap(), Criterion::new(&options).unwrap());
        assert_eq!(step(&mut all, &logits, &targets).0, step(&mut some, &some_logits, &some_targets).0);
        assert_eq!(State::of(&all), State::of(&some));
        // As an image of 2 x 4 pixels with the class in the middle.
        let mut image = vec![0f32; logits.len()];
        for sample in 0..8 {
            for k in 0..classes {
                image[(sample / 4 * classes + k) * 4 + sample % 4] = logits[sample * classes + k];
            }
        }
        let mut images = Criterion::new(&options).unwrap();
        let (mut loss, mut gradient) = (0f32, vec![0f32; image.len()]);
        let batch = Batch::new(TensorRef::new(&image, &[2, classes, 4]).unwrap(), TensorRef::new(&targets, &[2, 4]).unwrap());
        images.forward(&batch, Some(TensorMut::scalar(&mut loss)), Some(TensorMut::new(&mut gradient, &[2, classes, 4]).unwrap())).unwrap();
        let (flat_loss, flat_gradient) = step(&mut Criterion::new(&options).unwrap(), &logits, &targets);
        assert_eq!(loss, flat_loss);
        for sample in 0..8 {
            for k in 0..classes {
                assert_eq!(gradient[(sample / 4 * classes + k) * 4 + sample % 4], flat_gradient[sample * classes + k]);
            }
        }
        assert_eq!(State::of(&images), State::of(&all));
    }
}

#[test]
fn trap_6_workers_that_share_an_epoch_learn_what_one_learns() {
    let (logits, targets) = plain_batch(160, 7, 6);
    let mut one = Criterion::new(&Options::new(7)).unwrap();
    step(&mut one, &logits, &targets);
    let mut workers: Vec<Criterion> = (0..3).map(|_| Criterion::new(&Options::new(7)).unwrap()).collect();
    for (sample, &target) in targets.iter().enumerate() {
        step(&mut workers[sample % 3], &logits[sample * 7..][..7], &[target]);
    }
    let (first, others) = workers.split_first_mut().unwrap();
    others.iter().for_each(|other| first.merge(other).unwrap());
    assert_eq!(State::of(first), State::of(&one));
    assert_eq!(first.next_epoch().unwrap(), one.next_epoch().unwrap());
    assert_eq!(rows(first), rows(&one));
}

#[test]
fn trap_7_second_passes_do_not_count_or_are_taken_back() {
    let (logits, targets) = plain_batch(30, 4, 7);
    let view = || Batch::new(TensorRef::new(&logits, &[30, 4]).unwrap(), TensorRef::new(&targets, &[30]).unwrap());
    let mut criterion = Criterion::new(&Options::new(4)).unwrap();
    criterion.forward(&view(), None, None).unwrap();
    let once = State::of(&criterion);
    criterion.forward(&view().update(Update::None), None, None).unwrap();
    assert_eq!(State::of(&criterion), once);
    criterion.forward(&view(), None, None).unwrap();
    assert_eq!(criterion.counts().iter().sum::<i64>(), 2 * once.counts.iter().sum::<i64>());
    criterion.forward(&view().update(Update::TakeBack), None, None).unwrap();
    assert_eq!(State::of(&criterion), once);
}

#[test]
fn trap_8_options_are_checked_and_an_empty_batch_costs_nothing() {
    let bad = [
        Options::new(1),
        Options::new(0),
        Options::new(4).initial(Initial::Smoothing(1.5)),
        Options::new(4).initial(Initial::Smoothing(f64::NAN)),
        Options::new(4).alpha(f64::NAN),
        Options::new(4).alpha(1.0 + f64::EPSILON),
        Options::new(4).momentum(1.0),
        Options::new(4).min_count(0),
    ];
    for options in bad {
        assert_eq!(Criterion::new(&options).unwrap_err().kind(), ErrorKind::InvalidArgument, "{options:?}");
    }
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let mut criterion = Criterion::new(&Options::new(4).reduction(reduction)).unwrap();
        assert_eq!(step(&mut criterion, &[], &[]), (0.0, vec![]));
        assert_eq!(step(&mut criterion, &[f32::NAN; 4], &[-100]), (0.0, vec![0.0; 4]));
    }
}

#[test]
fn trap_9_soft_labels_stay_where_they_are() {
    let (logits, targets) = plain_batch(30, 4, 9);
    let mut criterion = Criterion::new(&Options::new(4)).unwrap();
    let place = |criterion: &Criterion| (criterion.soft_label(0).as_ptr(), criterion.sums(0).as_ptr(), criterion.counts().as_ptr());
    let before = place(&criterion);
    step(&mut criterion, &logits, &targets);
    let saved = criterion.to_bytes().unwrap();
    criterion.next_epoch().unwrap();
    criterion.set_soft_labels(&[0.25; 16]).unwrap();
    criterion.load_bytes(&saved).unwrap();
    assert_eq!(place(&criterion), before);
}

#[test]
fn trap_10_everything_that_shapes_the_result_is_saved() {
    let (logits, targets) = plain_batch(40, 4, 10);
    let options = Options::new(4)
        .alpha(0.25)
        .initial(Initial::Matrix((0..16).map(|i| i as f32 / 32.0).collect()))
        .empty_class(EmptyClass::Initial)
        .min_count(7)
        .momentum(0.5)
        .freeze_above(0.97)
        .class_weights(vec![1.0, 0.5, 0.25, 0.75])
        .ignore_index(3);
    let mut saved = Criterion::new(&options).unwrap();
    step(&mut saved, &logits, &targets);
    saved.next_epoch().unwrap();
    step(&mut saved, &logits, &targets);
    let mut loaded = Criterion::new(&Options::new(4).reduction(Reduction::Sum).mode(Mode::Eval)).unwrap();
    loaded.load_bytes(&saved.to_bytes().unwrap()).unwrap();
    // Mode and reduction stay the caller's.
    assert_eq!((loaded.mode(), loaded.options().reduction), (Mode::Eval, Reduction::Sum));
    let expected = options.reduction(Reduction::Sum).mode(loaded.options().mode);
    assert_eq!(*loaded.options(), expected);
    assert_eq!((State::of(&loaded), loaded.epoch()), (State::of(&saved), 1));
    assert_eq!((loaded.next_epoch().unwrap(), rows(&loaded)), (saved.next_epoch().unwrap(), rows(&saved)));
    // Another number of classes is an error.
    let mut other = Criterion::new(&Options::new(5)).unwrap();
    let before = other.to_bytes().unwrap();
    assert!(other.load_bytes(&saved.to_bytes().unwrap()).is_err());
    assert_eq!(other.to_bytes().unwrap(), before);
}

#[test]
fn trap_11_a_soft_label_is_a_row() {
    let mut criterion = Criterion::new(&Options::new(3)).unwrap();
    let p = [0.75f32, 0.125, 0.125];
    criterion.accumulate(&Batch::new(TensorRef::new(&p, &[1, 3]).unwrap(), TensorRef::new(&[0i64], &[1]).unwrap())).unwrap();
    criterion.next_epoch().unwrap();
    assert_eq!(criterion.soft_label(0), p);
    // And it is the row of the target that a loss takes: S[0] for target 0.
    criterion.set_alpha(0.0).unwrap();
    let (loss, _) = step(&mut criterion, &[1.0, 0.0, -1.0], &[0]);
    let log_sum = (1f32.exp() + 1.0 + (-1f32).exp()).ln();
    assert!((loss - (log_sum - (0.75 - 0.125))).abs() < 1e-6);
}

#[test]
fn trap_12_every_sample_of_a_class_counts_for_its_target() {
    let mut criterion = Criterion::new(&Options::new(3)).unwrap();
    let logits = [[2.0f32, 0.0, 0.0]; 10].concat();
    // Nine are right; the tenth is predicted as 0 but is a 1, and counts for neither.
    let mut targets = [0i64; 10];
    targets[4] = 1;
    step(&mut criterion, &logits, &targets);
    assert_eq!(criterion.counts(), [9, 0, 0]);
    let one = Criterion::new(&Options::new(3)).map(|mut one| {
        step(&mut one, &logits[..3], &[0]);
        one.sums(0).to_vec()
    });
    assert_eq!(criterion.sums(0), one.unwrap().iter().map(|sum| 9 * sum).collect::<Vec<_>>());
}
