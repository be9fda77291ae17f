//! Options that shape the soft labels, over several epochs.

use ols::DType::F32;
use ols::{EmptyClass, Initial, Options, Update};

use super::LOGITS;
use super::builder::{batch, batch_among, case};
use crate::support::model::{Case, Named};

pub fn options() -> Vec<Case> {
    let mut cases = vec![];
    let classes = 6;
    let matrix = Initial::Matrix((0..36).map(|i| (i * 7 % 11) as f32 / 16.0).collect());
    let initials = [
        ("smoothing", Initial::Smoothing(0.1)),
        ("smoothing-0", Initial::Smoothing(0.0)),
        ("smoothing-1", Initial::Smoothing(1.0)),
        ("smoothing-0.3", Initial::Smoothing(0.3)),
        ("uniform", Initial::Uniform),
        ("zero", Initial::Zero),
        ("one-hot", Initial::OneHot),
        ("matrix", matrix.clone()),
    ];
    for (which, (name, initial)) in initials.into_iter().enumerate() {
        for alpha in [0.0, 0.3, 1.0] {
            cases.push(
                case(
                    format!("initial-{name}-alpha-{alpha}"),
                    "the first epoch's soft labels",
                    Options::new(classes).initial(initial.clone()).alpha(alpha),
                )
                .batch(batch(LOGITS[which % 2], &[5, classes], 20 + which as u64))
                .forward(0)
                .end(),
            );
        }
    }
    // Only three of six classes have samples, so the policy decides about the others.
    for policy in [EmptyClass::Keep, EmptyClass::Uniform, EmptyClass::Initial, EmptyClass::OneHot, EmptyClass::Zero] {
        for momentum in [0.0, 0.75] {
            let options = Options::new(classes).initial(matrix.clone()).empty_class(policy).momentum(momentum).alpha(0.25);
            cases.push(
                case(format!("empty-{}-momentum-{momentum}", policy.name()), "classes without a right answer, over three epochs", options)
                    .batch(batch_among(F32, &[7, classes], 30, 3))
                    .batch(batch_among(F32, &[7, classes], 31, 2))
                    .forward(0)
                    .next_epoch()
                    .forward(1)
                    .next_epoch()
                    .forward(0)
                    .forward(1)
                    .next_epoch()
                    .update(0, Update::None)
                    .end(),
            );
        }
    }
    for min_count in [1, 2, 3, 1000] {
        let options = Options::new(3).min_count(min_count).empty_class(EmptyClass::Uniform);
        let batch = batch(F32, &[8, 3], 35);
        cases.push(
            case(format!("min-count-{min_count}"), "a class with fewer right answers is not measured", options)
                .batch(batch)
                .forward(0)
                .next_epoch()
                .end(),
        );
    }
    for (threshold, momentum) in [(0.88, 0.0), (0.9, 0.0), (0.95, 0.0), (0.95, 0.5), (1.5, 0.0)] {
        let options = Options::new(4).freeze_above(threshold).momentum(momentum).empty_class(EmptyClass::Zero);
        cases.push(
            case(
                format!("freeze-{threshold}-momentum-{momentum}"),
                "0.88 freezes a start of 0.9 at once; 0.9 does not, as 0.9 in f32 is a little less",
                options,
            )
            .batch(batch_among(F32, &[8, 4], 36, 3))
            .forward(0)
            .next_epoch()
            .forward(0)
            .next_epoch()
            .forward(0)
            .end(),
        );
    }
    let half = Options::new(3).initial(Initial::Smoothing(0.5)).freeze_above(0.5);
    cases.push(
        case("freeze-equal", "a class at the threshold is frozen", half).batch(batch(F32, &[8, 3], 38)).forward(0).next_epoch().end(),
    );
    for (name, initial, policy) in [("reference", Initial::Smoothing(0.1), EmptyClass::Zero), ("paper", Initial::Zero, EmptyClass::Uniform)]
    {
        cases.push(
            case(
                format!("preset-{name}"),
                "the options that the preset of this name sets",
                Options::new(5).initial(initial).empty_class(policy),
            )
            .batch(batch_among(F32, &[9, 5], 37, 3))
            .forward(0)
            .next_epoch()
            .forward(0)
            .end(),
        );
    }
    cases
}
