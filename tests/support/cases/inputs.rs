//! What comes with the logits: targets, weights, the gradient from behind.

use ols::DType::{F16, F32, F64, I32, I64, U8};
use ols::{Options, Reduction};

use super::LOGITS;
use super::builder::{batch, batch_among, case};
use crate::support::model::{Case, Named};

pub fn weights() -> Vec<Case> {
    let mut cases = vec![];
    let class_weights = [1.0, 0.5, 0.0, 0.75, 0.125];
    let sample_weights = [1.0, 0.5, 0.0, 2.0, 0.25, 1.0, 3.0];
    for dtype in LOGITS {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let options = Options::new(5).reduction(reduction);
            let weighted = options.clone().class_weights(class_weights.to_vec());
            let name = |kind: &str| format!("{kind}-{}-{}", reduction.name(), dtype.name());
            let plain = batch(dtype, &[7, 5], 40);
            let both = plain.clone().weighing(F32, &sample_weights);
            cases.push(case(name("plain"), "no weights", options.clone()).batch(plain.clone()).forward(0).end());
            cases.push(case(name("class"), "class weights", weighted.clone()).batch(plain.clone()).forward(0).backward(0).end());
            cases.push(case(name("both"), "class and sample weights", weighted.clone()).batch(both.clone()).forward(0).backward(0).end());
            let scaled = both.clone().grad_loss(F32, &[1024.0]);
            cases.push(
                case(name("scaled"), "a scalar grad_loss, as loss scaling gives it", weighted.clone())
                    .batch(scaled)
                    .forward(0)
                    .backward(0)
                    .end(),
            );
            if reduction == Reduction::None {
                let scaled = both.grad_loss(F64, &[1.0, -2.0, 0.5, 0.0, 8.0]);
                cases.push(case(name("each"), "a grad_loss per sample", weighted.clone()).batch(scaled).forward(0).backward(0).end());
            }
        }
    }
    let wide = batch(F32, &[6, 5], 41).weighing(F64, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    cases.push(case("f64-weights", "f64 weights with f32 logits", Options::new(5)).batch(wide).forward(0).end());
    let narrow = batch(F64, &[6, 5], 42).weighing(F32, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).grad_loss(F32, &[3.0]);
    cases.push(
        case("f32-weights-f64-logits", "f32 weights with f64 logits: 0.1 is what it is in f32", Options::new(5))
            .batch(narrow)
            .forward(0)
            .end(),
    );
    let why = "the divisor is 0: loss and gradient are 0, and the statistics go on";
    let options = Options::new(3).class_weights(vec![0.0, 0.0, 1.0]);
    cases.push(case("divisor-0", why, options.clone()).batch(batch_among(F32, &[5, 3], 43, 2)).forward(0).next_epoch().end());
    cases.push(
        case("divisor-0-sum", "a sum has no divisor", options.reduction(Reduction::Sum))
            .batch(batch_among(F32, &[5, 3], 43, 2))
            .forward(0)
            .end(),
    );
    let none = batch(F32, &[5, 3], 44).weighing(F32, &[0.0]);
    cases.push(case("nobody-weighs", "all sample weights are 0", Options::new(3)).batch(none).forward(0).next_epoch().end());
    let heavy = Options::new(3).class_weights(vec![1e3, 2.5, 1e-3]);
    cases.push(case("heavy", "class weights above 1", heavy).batch(batch(F32, &[5, 3], 45)).forward(0).end());
    // Without the scale inside, p < 2^-25 would be 0 in f16 before it is multiplied by 65536.
    let tiny = batch(F16, &[3, 4], 46).row(0, &[10.0, -8.0, -7.5, -8.5]).row(1, &[-9.0, 9.0, -9.5, -8.0]).grad_loss(F32, &[65536.0]);
    let tiny = tiny.target(0, 0).target(1, 1);
    cases.push(
        case("f16-underflow", "factor and grad_loss are multiplied before the one rounding", Options::new(4).alpha(1.0))
            .batch(tiny)
            .forward(0)
            .backward(0)
            .end(),
    );
    cases
}

pub fn targets() -> Vec<Case> {
    let mut cases = vec![];
    for (which, dtype) in [I64, I32, U8].into_iter().enumerate() {
        for offset in [0, 1] {
            let batch = batch(LOGITS[which], &[6, 7], 50).target_dtype(dtype, offset);
            let mixed = batch.clone().mixed(F32, &[0.75, 0.5, 0.25, 0.0, 1.0, 0.375]);
            cases.push(
                case(format!("{}-offset-{offset}", dtype.name()), "the class is target - offset", Options::new(7))
                    .batch(batch)
                    .batch(mixed)
                    .forward(0)
                    .forward(1)
                    .next_epoch()
                    .end(),
            );
        }
    }
    let negative = batch(F32, &[4, 5], 51).target_dtype(I32, -3);
    cases.push(case("offset-negative", "labels that begin at -3", Options::new(5)).batch(negative).forward(0).end());
    let wide = batch(F32, &[3, 300], 52).target_dtype(U8, 0).target(0, 255).target(1, 0).target(2, 254);
    cases.push(case("u8-300-classes", "u8 targets of 300 classes", Options::new(300)).batch(wide).forward(0).end());
    for dtype in LOGITS {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let options = Options::new(4).reduction(reduction);
            let name = |kind: &str| format!("{kind}-{}-{}", reduction.name(), dtype.name());
            let some = batch(dtype, &[7, 4], 53).target(1, -100).target(6, -100);
            let all = batch(dtype, &[3, 4], 54).target(0, -100).target(1, -100).target(2, -100);
            cases.push(
                case(name("ignored"), "some samples are ignored, then all", options.clone())
                    .batch(some)
                    .batch(all)
                    .forward(0)
                    .forward(1)
                    .backward(1)
                    .next_epoch()
                    .end(),
            );
            let mixed = batch(dtype, &[7, 4], 55).mixed(F32, &[0.75, 0.5, 0.25, 0.0, 1.0, 0.375, 0.625]);
            let one_lam = batch(dtype, &[7, 4], 56).mixed(F64, &[0.3]);
            cases.push(
                case(name("mixed"), "two targets: a lam per sample, one lam for all", options)
                    .batch(mixed)
                    .batch(one_lam)
                    .forward(0)
                    .forward(1)
                    .backward(1)
                    .next_epoch()
                    .end(),
            );
        }
    }
    for (ignore, dtype, offset) in [(255, U8, 0), (0, U8, 1), (-1, I32, 0), (3, I64, 0), (0, I64, 0)] {
        let mut ignoring = batch(F32, &[6, 4], 57).target_dtype(dtype, offset);
        ignoring = ignoring.target(2, ignore).target(4, ignore);
        cases.push(
            case(
                format!("ignore-{ignore}-{}-offset-{offset}", dtype.name()),
                "the ignore index is compared before the offset is subtracted; it may be a class",
                Options::new(4).ignore_index(ignore),
            )
            .batch(ignoring)
            .forward(0)
            .next_epoch()
            .end(),
        );
    }
    let mut second = batch(F32, &[6, 4], 58).mixed(F32, &[0.5, 1.0, 0.0, 0.25, 0.75, 0.5]);
    second.targets2.as_mut().unwrap().values[1] = -100;
    second = second.target(2, -100);
    let weighted = second.clone().weighing(F32, &[1.0, 1.0, 1.0, 0.0, 2.0, 0.5]);
    cases.push(
        case(
            "one-of-two-ignored",
            "a sample takes no part when one of its targets is the ignore index, whatever lam",
            Options::new(4).class_weights(vec![1.0, 0.5, 0.25, 0.0]),
        )
        .batch(second)
        .batch(weighted)
        .forward(0)
        .forward(1)
        .next_epoch()
        .end(),
    );
    let mut larger = batch(F32, &[4, 3], 59).mixed(F32, &[0.5, 0.49, 0.51, 0.5]);
    larger.targets.values = vec![0, 0, 0, 1];
    larger.targets2.as_mut().unwrap().values = vec![1, 1, 1, 0];
    larger = larger.row(0, &[2.0, 1.0, 0.0]).row(1, &[1.0, 2.0, 0.0]).row(2, &[2.0, 1.0, 0.0]).row(3, &[2.0, 1.0, 0.0]);
    cases.push(
        case("larger-lam", "the statistics mean the target with the larger lam, the first one at 1/2", Options::new(3))
            .batch(larger)
            .forward(0)
            .end(),
    );
    let duplicates = batch_among(F32, &[33, 5], 60, 1);
    cases.push(
        case("duplicate-labels", "many samples of one class in a batch", Options::new(5)).batch(duplicates).forward(0).next_epoch().end(),
    );
    cases
}
