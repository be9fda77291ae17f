//! Logits that are no ordinary numbers.

use ols::DType::{F16, F32};
use ols::{Initial, Options, Reduction};

use super::LOGITS;
use super::builder::{batch, case};
use crate::support::model::{Case, Named};

pub fn special() -> Vec<Case> {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut cases = vec![];
    for dtype in LOGITS {
        for classes in [3, 8, 17, 33] {
            let name = |kind: &str| format!("{kind}-k{classes}-{}", dtype.name());
            let fresh = |n: usize, seed: u64| batch(dtype, &[n, classes], seed);
            let each = Options::new(classes).reduction(Reduction::None);
            let last = classes - 1;

            let masked =
                fresh(4, 70).set(0, -inf).target(0, 1).set(classes + last, -inf).target(1, 0).set(2 * classes + 1, -inf).target(2, 1);
            cases.push(
                case(name("masked"), "-inf on a class: +inf loss where q > 0 on it", each.clone())
                    .batch(masked.clone())
                    .forward(0)
                    .backward(0)
                    .next_epoch()
                    .end(),
            );
            cases.push(
                case(name("masked-alpha-1"), "with alpha 1 only the target's own mask costs +inf", each.clone().alpha(1.0))
                    .batch(masked.clone())
                    .forward(0)
                    .end(),
            );
            cases.push(
                case(name("masked-one-hot"), "q == 0 on the mask: finite", each.clone().initial(Initial::OneHot))
                    .batch(masked)
                    .forward(0)
                    .end(),
            );

            let nan_row = fresh(5, 71).set(last, nan).set(classes + last, inf).row(2, &[-inf]).set(3 * classes, -inf);
            cases.push(
                case(name("not-finite"), "NaN, +inf, nothing but -inf: NaN in loss and gradient, nothing in the statistics", each.clone())
                    .batch(nan_row.clone())
                    .forward(0)
                    .next_epoch()
                    .end(),
            );
            let ignored = nan_row.clone().target(0, -100).target(1, -100).target(2, -100);
            cases.push(
                case(
                    name("not-finite-mean"),
                    "a mean with a NaN row is NaN; rows of ignored samples may hold anything",
                    Options::new(classes),
                )
                .batch(nan_row.clone())
                .batch(ignored)
                .forward(0)
                .forward(1)
                .next_epoch()
                .forward(1)
                .end(),
            );
            let weightless = nan_row.weighing(F32, &[0.0, 0.0, 0.0, 1.0, 1.0]);
            cases.push(
                case(name("not-finite-weightless"), "so may rows of samples that weigh 0", Options::new(classes))
                    .batch(weightless)
                    .forward(0)
                    .end(),
            );

            let big = if dtype == F16 { 32768.0 } else { 2f64.powi(100) };
            let huge = fresh(4, 72)
                .set(1, 8192.0)
                .target(0, 1)
                .set(classes, 8192.0)
                .target(1, 1)
                .row(2, &[-big])
                .set(2 * classes + 1, big)
                .target(2, 1);
            let huge = huge.row(3, &[big]).target(3, 0);
            cases.push(
                case(name("huge"), "logits of 2^13 and 2^100 (2^15 in f16)", each.clone())
                    .batch(huge)
                    .forward(0)
                    .backward(0)
                    .next_epoch()
                    .end(),
            );

            let ties = fresh(5, 73).row(0, &[1.0]).target(0, 0).row(1, &[1.0]).target(1, 1).row(2, &[-0.0, 0.0]).target(2, 0);
            let ties =
                ties.row(3, &[-0.0, 0.0]).target(3, 1).row(4, &[-1.0]).set(4 * classes + 1, -0.0).set(4 * classes + last, 0.0).target(4, 1);
            cases.push(
                case(name("ties"), "the first index wins a tie; -0 equals +0", each.clone()).batch(ties).forward(0).next_epoch().end(),
            );
        }
    }
    for dtype in LOGITS {
        for classes in [100, 1025] {
            let peaked =
                batch(dtype, &[2, classes], 74).row(0, &[0.0]).set(7, 17.0).target(0, 7).row(1, &[0.0]).set(classes + 7, 17.0).target(1, 8);
            cases.push(
                case(
                    format!("peaked-k{classes}-{}", dtype.name()),
                    "one logit 17 above equal ones, right and wrong",
                    Options::new(classes).alpha(1.0).reduction(Reduction::None),
                )
                .batch(peaked)
                .forward(0)
                .end(),
            );
        }
    }
    cases
}
