//! What happens over time.

use ols::DType::F32;
use ols::{EmptyClass, ErrorKind, Initial, Mode, Options, Update};

use super::LOGITS;
use super::builder::{batch, batch_among, case, probabilities};
use crate::support::model::{Case, Named};

pub fn epochs() -> Vec<Case> {
    let mut cases = vec![];
    for dtype in LOGITS {
        let name = |kind: &str| format!("{kind}-{}", dtype.name());
        let classes = 9;
        let with_batches = |kind: &str, why: &str, options: Options| {
            let mut builder = case(name(kind), why, options);
            for seed in 90..93 {
                builder = builder.batch(batch(dtype, &[11, classes], seed));
            }
            builder
        };
        let options = Options::new(classes);
        cases.push(
            with_batches("three-epochs", "three batches in each of three epochs", options.clone())
                .forward(0)
                .forward(1)
                .forward(2)
                .next_epoch()
                .forward(2)
                .forward(0)
                .forward(1)
                .next_epoch()
                .in_place(1)
                .forward(0)
                .next_epoch()
                .loss(0)
                .grad(1)
                .count(2, Update::Add)
                .end(),
        );
        cases.push(
            with_batches(
                "modes",
                "in eval mode a forward changes no state; the end of an epoch works all the same",
                options.clone().mode(Mode::Eval),
            )
            .forward(0)
            .mode(Mode::Train)
            .forward(1)
            .mode(Mode::Eval)
            .forward(2)
            .next_epoch()
            .forward(0)
            .next_epoch()
            .mode(Mode::Train)
            .forward(0)
            .end(),
        );
        cases.push(
            with_batches(
                "twice",
                "ending an epoch twice, or after evaluation alone, keeps the soft labels whatever the policy",
                options.clone().empty_class(EmptyClass::Zero),
            )
            .forward(0)
            .next_epoch()
            .next_epoch()
            .mode(Mode::Eval)
            .forward(1)
            .next_epoch()
            .loss(0)
            .end(),
        );
        cases.push(
            with_batches("second-pass", "a second pass with no update, and one that was counted and is taken back", options.clone())
                .forward(0)
                .update(0, Update::None)
                .forward(1)
                .count(1, Update::TakeBack)
                .forward(2)
                .next_epoch()
                .loss(1)
                .end(),
        );
        cases.push(
            with_batches("take-back", "add, take back, also in eval mode and with outputs", options.clone())
                .forward(0)
                .forward(1)
                .update(0, Update::TakeBack)
                .mode(Mode::Eval)
                .count(1, Update::TakeBack)
                .mode(Mode::Train)
                .count(1, Update::TakeBack)
                .fails(ErrorKind::InvalidState, "")
                .forward(2)
                .count(1, Update::TakeBack)
                .fails(ErrorKind::InvalidState, "")
                .next_epoch()
                .end(),
        );
        let poisoned = batch(dtype, &[6, classes], 101).set(3, f64::NAN).set(classes, f64::INFINITY);
        cases.push(
            case(name("take-back-skipped"), "a row that was skipped is taken back too", options.clone())
                .batch(poisoned)
                .batch(batch(dtype, &[5, classes], 102))
                .forward(0)
                .forward(1)
                .count(0, Update::TakeBack)
                .forward(0)
                .forward(0)
                .count(0, Update::TakeBack)
                .next_epoch()
                .end(),
        );
        let soft_label = Options::new(classes)
            .momentum(0.5)
            .min_count(2)
            .alpha(0.25)
            .class_weights((1..=9).map(|w| f64::from(w) / 8.0).collect::<Vec<_>>());
        cases.push(
            with_batches(
                "resume",
                "saved and loaded in mid-epoch, with options of its own",
                soft_label.initial(Initial::Uniform).empty_class(EmptyClass::Initial),
            )
            .forward(0)
            .save_load()
            .forward(1)
            .next_epoch()
            .save_load()
            .alpha(0.75)
            .forward(2)
            .save_load()
            .forward(0)
            .next_epoch()
            .save_load()
            .loss(1)
            .end(),
        );
        cases.push(
            with_batches("alpha", "alpha by a schedule", options.clone())
                .forward(0)
                .alpha(0.25)
                .forward(0)
                .next_epoch()
                .alpha(0.0)
                .loss(1)
                .alpha(1.0)
                .loss(1)
                .end(),
        );
        // Probabilities: those of the second batch include a row that is not finite and one that takes no part.
        let given = probabilities(dtype, &[7, classes], 94);
        let odd = probabilities(dtype, &[7, classes], 95)
            .set(2, f64::NAN)
            .set(classes, 1.0)
            .set(2 * classes, 7.0)
            .target(2, -100)
            .row(5, &[0.0])
            .target(5, 0);
        let mixed = probabilities(dtype, &[7, classes], 96).mixed(F32, &[0.25, 0.75, 0.5, 1.0, 0.0]).weighing(F32, &[1.0, 0.0, 2.0]);
        cases.push(
            case(name("accumulate"), "statistics from given probabilities obey mode and update as a forward does", options.clone())
                .batch(given)
                .batch(odd)
                .batch(mixed)
                .accumulate(0, Update::Add)
                .accumulate(1, Update::Add)
                .accumulate(2, Update::Add)
                .accumulate(0, Update::None)
                .mode(Mode::Eval)
                .accumulate(1, Update::Add)
                .accumulate(0, Update::TakeBack)
                .mode(Mode::Train)
                .accumulate(0, Update::Add)
                .next_epoch()
                .loss(0)
                .accumulate(1, Update::Add)
                .next_epoch()
                .end(),
        );
        let image = probabilities(dtype, &[2, 4, 5], 97);
        cases.push(
            case(name("accumulate-inner"), "probabilities of shape (N, K, inner)", Options::new(4))
                .batch(image)
                .accumulate(0, Update::Add)
                .next_epoch()
                .end(),
        );
    }
    let identity: Vec<f64> = (0..16).map(|i| f64::from(i % 5 == 0)).collect();
    let quarters: Vec<f64> = (0..16).map(|i| f64::from(i % 4) * 0.25).collect();
    cases.push(
        case(
            "set-soft-labels",
            "soft labels of the caller's; rows need not sum to 1",
            Options::new(4).empty_class(EmptyClass::Initial).momentum(0.5),
        )
        .batch(batch_among(F32, &[6, 4], 98, 2))
        .soft_labels(&identity)
        .forward(0)
        .soft_labels(&quarters)
        .forward(0)
        .next_epoch()
        .forward(0)
        .save_load()
        .next_epoch()
        .end(),
    );
    let zeros = probabilities(F32, &[2, 3], 99).row(0, &[0.0]).target(0, 0).row(1, &[0.0, 0.5, 0.25]).target(1, 1);
    cases.push(
        case("zero-rows", "a row of zeros counts, but its class is not measured", Options::new(3).empty_class(EmptyClass::Uniform))
            .batch(zeros)
            .accumulate(0, Update::Add)
            .next_epoch()
            .end(),
    );
    let infinite = probabilities(F32, &[4, 3], 103).set(1, f64::INFINITY).set(3, f64::NEG_INFINITY).set(6, f64::NAN).set(7, 7.0);
    cases.push(
        case(
            "accumulate-not-finite",
            "a row with any entry that is not finite is skipped and counted, whatever else it holds",
            Options::new(3),
        )
        .batch(infinite)
        .accumulate(0, Update::Add)
        .next_epoch()
        .end(),
    );
    let half = probabilities(F32, &[4, 3], 100)
        .row(0, &[1.0, 0.5 * 2f64.powi(-30), 1.5 * 2f64.powi(-30)])
        .row(1, &[0.5, 2.5 * 2f64.powi(-30), 2f64.powi(-40)])
        .row(2, &[0.25, 0.0, 1.25 * 2f64.powi(-30)])
        .row(3, &[0.125, -0.0, 2f64.powi(-31)])
        .target(0, 0)
        .target(1, 0)
        .target(2, 0)
        .target(3, 0);
    cases.push(
        case("half-to-even", "each probability is rounded once to 2^-30, half to even", Options::new(3))
            .batch(half)
            .accumulate(0, Update::Add)
            .next_epoch()
            .end(),
    );
    cases
}
