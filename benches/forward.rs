//! Loss, gradient and statistics of one batch, beside a copy of its logits: `make bench`. Compare the ratios within a run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion as Benchmark, Throughput, criterion_group, criterion_main};
use ols::{Criterion, Options};

/// Samples and classes.
const SHAPES: [(usize, usize); 5] = [(128, 10), (256, 100), (256, 1000), (4096, 1000), (1024, 10_000)];

/// Logits of which about 70 % are classified right, and their targets.
fn batch(samples: usize, classes: usize) -> (Vec<f32>, Vec<i64>) {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut logits: Vec<f32> = (0..samples * classes).map(|_| 4.0 * uniform() - 2.0).collect();
    let targets: Vec<i64> = (0..samples).map(|n| (n * 7 % classes) as i64).collect();
    for (n, &target) in targets.iter().enumerate().filter(|(n, _)| n % 10 < 7) {
        logits[n * classes + target as usize] = 6.0;
    }
    (logits, targets)
}

fn forward(benchmark: &mut Benchmark) {
    let mut group = benchmark.benchmark_group("forward");
    group.sample_size(20);
    for (samples, classes) in SHAPES {
        let (logits, targets) = batch(samples, classes);
        let mut gradient = vec![0f32; logits.len()];
        let shape = format!("{samples}x{classes}");
        group.throughput(Throughput::Elements(logits.len() as u64));
        let mut criterion = Criterion::new(&Options::new(classes).threads(1)).expect("the options are valid");
        group.bench_function(BenchmarkId::new("libols", &shape), |bencher| {
            bencher.iter(|| criterion.loss_and_gradient(black_box(&logits), &targets, &mut gradient).expect("the batch is valid"));
        });
        group.bench_function(BenchmarkId::new("copy", &shape), |bencher| {
            bencher.iter(|| black_box(&mut gradient).copy_from_slice(black_box(&logits)));
        });
    }
    group.finish();
}

fn next_epoch(benchmark: &mut Benchmark) {
    let mut group = benchmark.benchmark_group("next_epoch");
    group.sample_size(20);
    for classes in [100, 1000] {
        let (logits, targets) = batch(2 * classes, classes);
        let mut gradient = vec![0f32; logits.len()];
        let mut criterion = Criterion::new(&Options::new(classes).threads(1)).expect("the options are valid");
        group.bench_function(BenchmarkId::from_parameter(classes), |bencher| {
            bencher.iter_custom(|repetitions| {
                let mut time = Duration::ZERO;
                for _ in 0..repetitions {
                    criterion.loss_and_gradient(&logits, &targets, &mut gradient).expect("the batch is valid");
                    let start = Instant::now();
                    black_box(criterion.next_epoch().expect("there is a next epoch"));
                    time += start.elapsed();
                }
                time
            });
        });
    }
    group.finish();
}

criterion_group!(benches, forward, next_epoch);
criterion_main!(benches);
