//! Kernels whose rows are brought to shared memory by the copy engine give the bits of the kernels for all devices,
//! wherever rows begin, however few slots there are, and however many rows follow one another.

use ols::capi::*;
use ols::{DType, Mode, Options, Reduction, Update};

use crate::device::{CudaCriterion, raw_options, tensor};
use crate::standin::{DeviceMemory, Standin};
use crate::support::hex::Hex;
use crate::support::life::{Shape, bits, grad_view, loss_view};
use crate::support::model::{CaseBatch, View};
use crate::support::runner::Outputs;

/// The outputs of each pass, and the statistics of the classes among the targets.
#[derive(Debug, PartialEq)]
struct Made {
    passes: Vec<Vec<Vec<u64>>>,
    sums: Vec<Vec<i64>>,
    counts: Vec<i64>,
}

/// Runs passes of every kind over a batch. Only the rows of soft labels and sums that the batch needs are ever touched: for
/// this many classes, whole matrices would take seconds. `gap`: elements between the rows of both matrices, and before the
/// first one.
fn make(standin: &Standin, kernel: &str, options: &Options, batch: &CaseBatch, gap: usize) -> Made {
    make_with(standin, kernel, options, batch, gap, &grad_view(batch))
}

/// The same with a layout for the gradient.
fn make_with(standin: &Standin, kernel: &str, options: &Options, batch: &CaseBatch, gap: usize, grad: &Option<View>) -> Made {
    let classes = options.classes;
    let view = View::strided(&[classes, classes], &[(classes + gap) as isize, 1]).padded(gap, 0);
    let matrix = |size: usize| DeviceMemory::new(view.length() * size);
    let (soft_labels, sums) = (matrix(4), matrix(8));
    if classes <= 1024 {
        // For larger ones, the system provides zeros.
        soft_labels.fill(0);
        sums.fill(0);
    }
    let present: Vec<usize> = batch.targets.values.iter().filter_map(|&target| usize::try_from(target).ok()).collect();
    for &class in &present {
        for k in 0..classes {
            let value = if (k + class) % 5 == 0 { 0.0 } else { ((k + 3 * class) % 11) as f32 * 1e-4 };
            // SAFETY: an element of the matrix, in memory of the stand-in, which is host memory; nothing runs.
            unsafe { soft_labels.pointer().cast::<f32>().add(gap + class * (classes + gap) + k).write(value) };
        }
    }
    let mut raw = raw_options(options);
    raw.device_type = OLS_DEVICE_CUDA;
    raw.flags = OLS_OPTIONS_ADOPT_STATE;
    raw.soft_labels = tensor(soft_labels.pointer(), DType::F32, &view, 0);
    raw.sums = tensor(sums.pointer(), DType::I64, &view, 0);
    let mut criterion = CudaCriterion::from_raw(&raw, options).unwrap();
    let loss = loss_view(options, batch);
    let counts = criterion.views()[2].data.cast::<i64>();
    if classes > 1024 {
        // Full after one more sample. (With many rows, it would depend on the schedule which of them is the one.)
        // SAFETY: a count per class, in memory of the stand-in, which is host memory; nothing runs.
        unsafe { counts.add(present[0]).write((1 << 32) - 1) };
    }
    let mut passes = Vec::new();
    let mut keep = |(result, outputs): (crate::device::Result<()>, Outputs)| {
        result.unwrap();
        assert_eq!(standin.kernels(), [kernel]);
        passes.push(bits(&outputs));
    };
    standin.kernels();
    for (update, grad, in_place) in
        [(Update::Add, grad, batch.logits.view.strides.is_none()), (Update::Add, &None, false), (Update::None, grad, false)]
    {
        keep(criterion.forward(standin, batch, update, &loss, grad, in_place));
    }
    keep(criterion.backward(standin, batch, grad.as_ref().unwrap()));
    criterion.set_mode(Mode::Eval);
    keep(criterion.forward(standin, batch, Update::Add, &loss, &None, false));
    let row = |class: usize| {
        // SAFETY: a row of the matrix, as above.
        let at = |k: usize| unsafe { sums.pointer().cast::<i64>().add(gap + class * (classes + gap) + k).read() };
        (0..classes).map(at).collect()
    };
    // SAFETY: a count per class, as above.
    let count = |&class: &usize| unsafe { counts.add(class).read() };
    Made { passes, sums: present.iter().copied().map(row).collect(), counts: present.iter().map(count).collect() }
}

/// Raises the logit of the target in most rows, far enough to be the only maximum, even in 16 bits.
fn raise(batch: &mut CaseBatch, classes: usize) {
    for (row, &target) in batch.targets.values.iter().enumerate().filter(|(row, _)| row % 3 != 2) {
        let Ok(target) = usize::try_from(target) else { continue };
        let (index, value) = &mut batch.logits.set[row * classes + target];
        assert_eq!(*index, row * classes + target);
        if value.0.is_finite() {
            *value = Hex(9.0);
        }
    }
}

fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        _ => "bf16",
    }
}

/// What each of the kernels makes of a batch, with the path that selects it and a seed for the order of threads and blocks.
fn of_each(standin: &Standin, kernels: &[(&str, &str, i64)], options: &Options, batch: &CaseBatch, gap: usize) -> Vec<Made> {
    let one = |&(path, kernel, seed): &(&str, &str, i64)| {
        standin.path(path);
        standin.set("seed", seed);
        make(standin, &format!("ols_{kernel}_{}", name(batch.logits.dtype.0)), options, batch, gap)
    };
    kernels.iter().map(one).collect()
}

/// Long rows that stream through shared memory.
#[test]
fn cuda_streams_give_the_bits_of_other_kernels() {
    let standin = Standin::new();
    standin.set("spoils", 0);
    // Barriers; slots of one unit more than a chunk; what the stand-in pretends each kernel to have anyway.
    let least = |classes: usize, size: usize| {
        let exponentials = if size == 2 { 4 * classes } else { 0 };
        16 * (16 + 4) + exponentials + 2 * (4 * 4096 + 16) + classes.div_ceil(4096) * (size * 4096 + 16) + 1024
    };
    for (at, (classes, dtype, n, layout, gap, multiprocessors, much)) in [
        // Shared memory for the least number of slots, or for many rows at once.
        (6145, DType::F32, 7, 0, 0, 1, false),
        (6145, DType::F32, 3, 2, 1, 1, true),
        (6146, DType::Bf16, 5, 0, 2, 1, false),
        (6147, DType::F16, 9, 0, 0, 2, false),
        (8191, DType::F32, 5, 2, 0, 1, false),
        (8192, DType::F16, 6, 0, 0, 1, true),
        (8192, DType::F32, 1, 0, 0, 1, false),
        (8193, DType::Bf16, 4, 2, 3, 1, false),
        (8193, DType::F32, 5, 0, 0, 1, true),
        (10_250, DType::Bf16, 12, 0, 0, 1, true),
        (12_289, DType::F32, 4, 0, 0, 1, false),
        (14_343, DType::F16, 5, 0, 1, 1, false),
    ]
    .into_iter()
    .enumerate()
    {
        let options = Options::new(classes).alpha(0.4).reduction([Reduction::Mean, Reduction::None, Reduction::Sum][at % 3]);
        // NaN, infinity, huge and masked logits, in rows in the middle of a stream.
        let special = vec![(classes + 5, 3), (2 * classes + 70, 2), (3 * classes + 9, 5), (4 * classes + 1, 0), (5, 0)];
        let special = if n > 5 { special } else { vec![(classes - 1, 0), (2 * classes + 3, 3)] };
        let shape = Shape { layout, ignored: at % 2 == 1, special, ..Shape::rows(dtype, n, 20 + at as u64) };
        let mut batch = shape.batch(classes, &options);
        // The first and the last class, whose soft labels lie at the ends of their memory.
        batch.targets.values[0] = 0;
        batch.targets.values[n - 1] = classes as i64 - 1;
        raise(&mut batch, classes);
        standin.set("shared_limit", if much { 227 * 1024 } else { least(classes, dtype.size()) as i64 });
        standin.set("multiprocessors", multiprocessors);
        let kernels = [("plain", "rows512", 0), ("", "stream512", 0), ("hopper", "stream512", 1 + at as i64)];
        let made = of_each(&standin, &kernels, &options, &batch, gap);
        assert!(made[1..].iter().all(|it| *it == made[0]), "{classes} {dtype:?} {n} {layout}: other bits");
        let (first, others) = made[0].counts.split_first().unwrap();
        assert!(
            (n == 1 || *first == 1 << 32) && (n < 4 || others.iter().any(|&count| count > 0)),
            "{classes} {dtype:?} {:?}",
            made[0].counts
        );
    }
}

/// Short rows, one per warp, with more rows than warps.
#[test]
fn cuda_rows_in_shared_memory_give_the_bits_of_rows_in_registers() {
    let standin = Standin::new();
    for (at, (classes, dtype, n, layout, gap)) in [
        (257, DType::F32, 1024, 0, 0),
        (258, DType::Bf16, 1031, 2, 1),
        (301, DType::F16, 1024, 0, 0),
        (384, DType::F32, 1026, 2, 0),
        (512, DType::F32, 1024, 0, 3),
        (513, DType::Bf16, 1024, 0, 0),
        (1000, DType::Bf16, 1025, 0, 0),
        (1023, DType::F16, 1024, 2, 1),
        (1024, DType::Bf16, 1024, 0, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let options = Options::new(classes).alpha(0.4).reduction([Reduction::Mean, Reduction::None, Reduction::Sum][at % 3]);
        let special = vec![(classes + 5, 3), (2 * classes + 70, 2), (3 * classes + 9, 5), (4 * classes + 1, 0), (5, 0), (900 * classes, 3)];
        let shape = Shape { layout, ignored: at % 2 == 1, special, ..Shape::rows(dtype, n, 40 + at as u64) };
        let mut batch = shape.batch(classes, &options);
        raise(&mut batch, classes);
        standin.set("multiprocessors", 1 + 130 * (at as i64 % 2));
        let made = of_each(&standin, &[("plain", "wide32", 0), ("", "shared32", 1 + at as i64)], &options, &batch, gap);
        assert!(made[1] == made[0], "{classes} {dtype:?} {n} {layout}: other bits");
        assert!(made[0].counts[1..].iter().any(|&count| count > 1), "{classes} {dtype:?}: nothing was counted");
    }
}

/// Copies are of whole units of 16 bytes, but nothing outside a tensor is read, which AddressSanitizer would tell: rows that
/// begin or end inside a unit, and a last chunk that is shorter than the rest of its unit. Rows that overlap, or lie in
/// descending order, are left to other kernels.
#[test]
fn cuda_copies_stay_within_their_tensors() {
    let standin = Standin::new();
    standin.set("spoils", 0);
    let rows = |classes: usize, stride: isize| move |n: usize| View::strided(&[n, classes], &[stride, 1]);
    let launched = |classes: usize, dtype: DType, n: usize, view: View, gap: usize, kernel: &str| {
        let options = Options::new(classes).alpha(0.4).reduction(Reduction::None);
        let mut batch = Shape::rows(dtype, n, 60).batch(classes, &options);
        batch.targets.values.iter_mut().enumerate().for_each(|(row, target)| *target = if row % 2 == 0 { 0 } else { classes as i64 - 1 });
        batch.logits.view = view;
        let grad = Some(View::new(&[n, classes]));
        let made = ["plain", ""].map(|path| {
            standin.path(path);
            let kernel =
                format!("ols_{}_{}", if path == "plain" { if classes > 1024 { "rows512" } else { "wide32" } } else { kernel }, name(dtype));
            make_with(&standin, &kernel, &options, &batch, gap, &grad)
        });
        assert!(made[0] == made[1], "{classes} {dtype:?} {n} {:?}: other bits", batch.logits.view);
    };
    for (classes, dtype, n, gap) in [
        (8193, DType::F32, 2, 1),
        (8193, DType::Bf16, 2, 0),
        (8194, DType::F16, 2, 3),
        (12_289, DType::Bf16, 4, 2),
        (6147, DType::F32, 1, 1),
    ] {
        launched(classes, dtype, n, View::new(&[n, classes]), gap, "stream512");
        launched(classes, dtype, n, rows(classes, classes as isize + 1)(n).padded(1, 0), gap, "stream512");
    }
    for (classes, dtype) in [(257, DType::F32), (301, DType::Bf16)] {
        launched(classes, dtype, 1025, View::new(&[1025, classes]), 1, "shared32");
        launched(classes, dtype, 1025, rows(classes, classes as isize + 3)(1025).padded(1, 0), 0, "shared32");
    }
    for stride in [0, 256, -257] {
        launched(257, DType::F32, 1024, rows(257, stride)(1024), 0, "wide32");
    }
    launched(6147, DType::F32, 3, rows(6147, -6147)(3), 0, "rows512");
}

/// Newer devices than those on which they were measured use the kernels that all devices have.
#[test]
fn cuda_copies_only_on_measured_devices() {
    let standin = Standin::new();
    let options = Options::new(300);
    let batch = Shape::rows(DType::Bf16, 1024, 1).batch(300, &options);
    for (capability, kernel) in [(90, "ols_shared32_bf16"), (100, "ols_wide32_bf16"), (120, "ols_wide32_bf16"), (89, "ols_wide32_bf16")] {
        standin.set("capability", capability);
        let mut criterion = CudaCriterion::new(&options).unwrap();
        standin.kernels();
        criterion.forward(&standin, &batch, Update::Add, &None, &grad_view(&batch), false).0.unwrap();
        assert_eq!(standin.kernels(), [kernel], "{capability}");
    }
}
