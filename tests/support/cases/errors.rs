//! Calls that must fail and change nothing.

use ols::DType::{F32, F64, I32, I64, U8};
use ols::{ErrorKind, Initial, Options, Update};

use super::builder::{batch, case, probabilities};
use crate::support::model::Case;

pub fn errors() -> Vec<Case> {
    use ErrorKind::{InvalidArgument, InvalidShape, TargetOutOfRange};
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let create =
        |name: &str, options: Options, kind: ErrorKind, message: &str| case(name, "cannot be created", options).refused(kind, message);
    let four = || Options::new(4);
    let matrix = |value: f32| Initial::Matrix((0..16).map(|i| if i == 6 { value } else { 0.25 }).collect());
    let weights = |value: f64| vec![1.0, 1.0, value, 1.0];
    let mut cases = vec![
        create("no-classes", Options::new(0), InvalidArgument, "num_classes = 0"),
        create("one-class", Options::new(1), InvalidArgument, "num_classes = 1"),
        create("alpha-negative", four().alpha(-0.1), InvalidArgument, "alpha = "),
        create("alpha-above-1", four().alpha(1.5), InvalidArgument, "alpha = 1.5"),
        create("alpha-nan", four().alpha(nan), InvalidArgument, "alpha = "),
        create("smoothing-above-1", four().initial(Initial::Smoothing(1.5)), InvalidArgument, "smoothing = 1.5"),
        create("smoothing-negative", four().initial(Initial::Smoothing(-0.5)), InvalidArgument, "smoothing = -0.5"),
        create("smoothing-nan", four().initial(Initial::Smoothing(nan)), InvalidArgument, "smoothing = "),
        create("momentum-1", four().momentum(1.0), InvalidArgument, "momentum = 1"),
        create("momentum-negative", four().momentum(-0.5), InvalidArgument, "momentum = -0.5"),
        create("momentum-nan", four().momentum(nan), InvalidArgument, "momentum = "),
        create("min-count-0", four().min_count(0), InvalidArgument, "min_count = 0"),
        create("weight-negative", four().class_weights(weights(-1.0)), InvalidArgument, "class_weights[2] = -1"),
        create("weight-nan", four().class_weights(weights(nan)), InvalidArgument, "class_weights[2] = "),
        create("weight-inf", four().class_weights(weights(inf)), InvalidArgument, "class_weights[2] = "),
        create("weights-too-few", four().class_weights(vec![1.0; 3]), InvalidShape, "class_weights"),
        create("matrix-negative", four().initial(matrix(-0.5)), InvalidArgument, "initial_soft_labels[1, 2] = -0.5"),
        create("matrix-nan", four().initial(matrix(f32::NAN)), InvalidArgument, "initial_soft_labels[1, 2] = "),
        create("matrix-inf", four().initial(matrix(f32::INFINITY)), InvalidArgument, "initial_soft_labels[1, 2] = "),
        create("matrix-too-small", four().initial(Initial::Matrix(vec![0.5; 15])), InvalidShape, "initial_soft_labels"),
    ];
    // A good batch before and after, so that there is a state to keep.
    let good = batch(F32, &[4, 4], 110);
    let bad = [
        ("target-too-large", good.clone().target(2, 7), TargetOutOfRange, "target[2] = 7"),
        ("target-k", good.clone().target(1, 4), TargetOutOfRange, "target[1] = 4"),
        ("target-negative", good.clone().target(3, -1), TargetOutOfRange, "target[3] = -1"),
        ("target-0-offset-1", good.clone().target_dtype(I64, 1).target(2, 0), TargetOutOfRange, "target[2] = 0"),
        ("target-extreme", good.clone().target_dtype(I64, 1).target(2, i64::MIN), TargetOutOfRange, "target[2] = -9223372036854775808"),
        ("target-u8", good.clone().target_dtype(U8, 0).target(0, 156), TargetOutOfRange, "target[0] = 156"),
        ("target-i32", good.clone().target_dtype(I32, 0).target(0, -99), TargetOutOfRange, "target[0] = -99"),
        ("target-of-no-weight", good.clone().weighing(F32, &[1.0, 0.0]).target(1, 4), TargetOutOfRange, "target[1] = 4"),
        ("weight-negative", good.clone().weighing(F32, &[1.0, -1.0]), InvalidArgument, "sample_weights[1] = -1"),
        ("weight-nan", good.clone().weighing(F64, &[1.0, nan]), InvalidArgument, "sample_weights[1] = "),
        ("weight-inf", good.clone().weighing(F32, &[1.0, inf]), InvalidArgument, "sample_weights[1] = "),
        (
            "weight-of-ignored",
            good.clone().weighing(F32, &[1.0, -1.0]).target(1, -100).target(3, -100),
            InvalidArgument,
            "sample_weights[1] = -1",
        ),
        ("lam-above-1", good.clone().mixed(F32, &[0.5, 0.5, 1.5]), InvalidArgument, "lam[2] = 1.5"),
        ("lam-negative", good.clone().mixed(F64, &[0.5, 0.5, -0.25]), InvalidArgument, "lam[2] = -0.25"),
        ("lam-nan", good.clone().mixed(F32, &[nan]), InvalidArgument, "lam"),
        ("lam-of-ignored", good.clone().mixed(F32, &[0.5, 2.0]).target(1, -100).target(3, -100), InvalidArgument, "lam[1] = 2"),
        ("grad-loss-each", good.clone().grad_loss(F32, &[1.0, 2.0]), InvalidShape, "grad_loss"),
    ];
    for (name, batch, kind, message) in bad {
        cases.push(
            case(format!("forward-{name}"), "a batch that is refused as a whole: outputs and state stay as they are", four())
                .batch(good.clone())
                .batch(batch)
                .forward(0)
                .forward(1)
                .fails(kind, message)
                .backward(1)
                .fails(kind, message)
                .forward(0)
                .next_epoch()
                .end(),
        );
    }
    let mut second = good.clone().mixed(F32, &[0.5, 0.25]);
    second.targets2.as_mut().unwrap().values[3] = 9;
    cases.push(
        case("forward-target2-too-large", "a second target that is no class, also where lam is 1", four())
            .batch(good.clone())
            .batch(second)
            .forward(0)
            .forward(1)
            .fails(TargetOutOfRange, "[3] = 9")
            .end(),
    );
    let image = batch(F32, &[2, 4, 3], 111).target(4, 9);
    cases.push(
        case("forward-target-inner", "the message says where", four())
            .batch(image)
            .forward(0)
            .fails(TargetOutOfRange, "target[1, 1] = 9")
            .end(),
    );
    let above = probabilities(F32, &[3, 4], 112).set(6, 1.5);
    let below = probabilities(F32, &[3, 4], 113).set(11, -0.25);
    cases.push(
        case("accumulate-outside", "a probability outside [0, 1]", four())
            .batch(probabilities(F32, &[3, 4], 114))
            .batch(above)
            .batch(below)
            .accumulate(0, Update::Add)
            .accumulate(1, Update::Add)
            .fails(InvalidArgument, "logits[1, 2] = 1.5")
            .accumulate(2, Update::Add)
            .fails(InvalidArgument, "logits[2, 3] = -0.25")
            .end(),
    );
    let mut labels = vec![0.25; 16];
    labels[9] = -1.0;
    let mut infinite = vec![0.25; 16];
    infinite[0] = inf;
    cases.push(
        case("setters", "settings that are refused", four())
            .batch(good)
            .forward(0)
            .soft_labels(&labels)
            .fails(InvalidArgument, "soft_labels[2, 1] = -1")
            .soft_labels(&infinite)
            .fails(InvalidArgument, "soft_labels[0, 0] = ")
            .alpha(2.0)
            .fails(InvalidArgument, "alpha = 2")
            .alpha(nan)
            .fails(InvalidArgument, "alpha = ")
            .forward(0)
            .end(),
    );
    cases
}
