//! Threads change no bit, wait asleep, and are made for batches alone that are worth them.
#![cfg(target_os = "linux")]

#[path = "support/alone.rs"]
mod alone;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ols::{Batch, Criterion, Element, Initial, Logit, Options, Reduction, TensorMut, TensorRef, Update, bf16, f16};

/// Threads and processor time are the process's, so the tests of this file take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Numbers in [-1, 1) from a fixed sequence (splitmix64).
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A batch: (N, K) logits, or (N, K, inner).
struct Data<L> {
    shape: Vec<usize>,
    logits: Vec<L>,
    targets: Vec<i32>,
}

impl<L: Copy> Data<L> {
    /// Most samples are of class `favourite`, if there is one; most are classified right, some ignored, a few not finite.
    fn new(shape: &[usize], favourite: Option<usize>, to_logit: impl Fn(f64) -> L) -> Self {
        let (classes, inner) = (shape[1], shape.get(2).copied().unwrap_or(1));
        let samples = shape[0] * inner;
        let mut next = noise(samples as u64);
        let mut logits: Vec<L> = (0..samples * classes).map(|_| to_logit(next() * 4.0)).collect();
        let mut targets = Vec::new();
        for sample in 0..samples {
            let class = favourite.filter(|_| sample % 5 != 0).unwrap_or(sample * 7 % classes);
            let at = |class: usize| (sample / inner * classes + class) * inner + sample % inner;
            if sample % 3 != 0 {
                logits[at(class)] = to_logit(9.0);
            }
            if sample % 997 == 11 {
                logits[at(0)] = to_logit(f64::NAN);
            }
            targets.push(if sample % 11 == 4 { -100 } else { class as i32 });
        }
        Self { shape: shape.to_vec(), logits, targets }
    }

    fn batch(&self) -> Batch<'_>
    where
        L: Element,
    {
        let of_targets = if self.shape.len() == 3 { vec![self.shape[0], self.shape[2]] } else { vec![self.shape[0]] };
        Batch::new(TensorRef::new(&self.logits, &self.shape).unwrap(), TensorRef::new(&self.targets, &of_targets).unwrap())
    }
}

/// Everything that two passes, one of them taken back, and the end of an epoch leave behind, as bytes.
fn results<L>(data: &Data<L>, options: &Options) -> Vec<u8>
where
    L: Logit + Element + Default + Copy + bytemuck::NoUninit,
    L::Loss: Element + Default + bytemuck::NoUninit,
{
    let mut criterion = Criterion::new(options).unwrap();
    let mut bytes = Vec::new();
    let each = options.reduction == Reduction::None;
    for update in [Update::Add, Update::Add, Update::TakeBack] {
        let mut losses = vec![L::Loss::default(); if each { data.targets.len() } else { 1 }];
        let mut gradient = vec![L::default(); data.logits.len()];
        let of_losses = if each { vec![data.targets.len()] } else { vec![] };
        let loss = TensorMut::new(&mut losses, &of_losses).unwrap();
        let grad = TensorMut::new(&mut gradient, &data.shape).unwrap();
        criterion.forward(&data.batch().update(update), Some(loss), Some(grad)).unwrap();
        bytes.extend_from_slice(bytemuck::cast_slice(&losses));
        bytes.extend_from_slice(bytemuck::cast_slice(&gradient));
        bytes.extend((0..options.classes).flat_map(|class| bytemuck::cast_slice::<i64, u8>(criterion.sums(class)).to_vec()));
        bytes.extend_from_slice(bytemuck::cast_slice(criterion.counts()));
        bytes.extend_from_slice(bytemuck::cast_slice(criterion.counters()));
        assert!(criterion.counts().iter().sum::<i64>() > 100 && criterion.counters()[0] > 0);
    }
    criterion.next_epoch().unwrap();
    bytes.extend((0..options.classes).flat_map(|class| bytemuck::cast_slice::<f32, u8>(criterion.soft_label(class)).to_vec()));
    bytes
}

fn same_for_any_number<L>(shape: &[usize], favourite: Option<usize>, to_logit: impl Fn(f64) -> L + Copy)
where
    L: Logit + Element + Default + Copy + bytemuck::NoUninit,
    L::Loss: Element + Default + bytemuck::NoUninit,
{
    let data = Data::new(shape, favourite, to_logit);
    let reduction = if shape.len() == 2 && shape[0].is_multiple_of(2) { Reduction::None } else { Reduction::Mean };
    let options = Options::new(shape[1]).initial(Initial::Smoothing(0.2)).alpha(0.4).reduction(reduction);
    let one = results(&data, &options.clone().threads(1));
    for threads in [2, 3, 8, 0] {
        let found = results(&data, &options.clone().threads(threads));
        assert!(found == one, "{threads} threads differ from one at {shape:?}, most of class {favourite:?}");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a minute without optimisation; `make test-rust` runs it with")]
fn any_number_of_threads_gives_the_same_bits() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Few classes (a sum of its own for each thread) and many (the same sums under locks), evenly spread and all on one row.
    for favourite in [None, Some(3)] {
        same_for_any_number(&[40_001, 10], favourite, |x| x as f32);
        same_for_any_number(&[3_000, 128], favourite, |x| x as f32);
        same_for_any_number(&[2_501, 129], favourite, |x| x as f32);
        same_for_any_number(&[700, 1_000], favourite, |x| x as f32);
        same_for_any_number(&[200, 2_500], favourite, |x| x as f32);
    }
    same_for_any_number(&[3_000, 100], None, |x| x);
    same_for_any_number(&[500, 1_000], None, bf16::from_f64);
    same_for_any_number(&[3_000, 100], None, f16::from_f64);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "slow without optimisation; `make test-rust` runs it with")]
fn images_are_shared_out_too() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    same_for_any_number(&[3, 21, 4_101], None, |x| x as f32);
    same_for_any_number(&[40, 21, 49], None, bf16::from_f64);
    same_for_any_number(&[2, 150, 1_025], None, |x| x as f32);
}

/// The library's threads in this process; the test runner has threads of its own, which come and go.
fn threads_of_the_library() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A task may end while it is looked at.
    tasks
        .filter(|task| std::fs::read_to_string(task.as_ref().unwrap().path().join("comm")).is_ok_and(|name| name.trim() == "libols"))
        .count()
}

/// A forward pass over `samples` samples of 100 classes.
fn forward(criterion: &mut Criterion, samples: usize) {
    let data = Data::new(&[samples, 100], None, |x| x as f32);
    criterion.forward(&data.batch(), None, None).unwrap();
}

#[test]
fn threads_are_made_when_a_batch_is_worth_them_and_end_with_the_criterion() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut criterion = Criterion::new(&Options::new(100).threads(3)).unwrap();
    let mut single = Criterion::new(&Options::new(100).threads(1)).unwrap();
    forward(&mut criterion, 256);
    assert_eq!(threads_of_the_library(), 0, "a small batch made a thread");
    forward(&mut single, 50_000);
    assert_eq!(threads_of_the_library(), 0, "one thread is one thread");
    forward(&mut criterion, 50_000);
    assert_eq!(threads_of_the_library(), 2);
    forward(&mut criterion, 60_000);
    assert_eq!(threads_of_the_library(), 2);
    drop(criterion);
    // A thread that has ended may be listed for a moment.
    let end = Instant::now() + Duration::from_secs(60);
    while threads_of_the_library() > 0 {
        assert!(Instant::now() < end, "threads outlive their criterion");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A child process that cannot make a thread: no room in its addresses for a stack.
#[test]
#[ignore = "run in a process of its own, by the test below"]
fn without_room_for_a_thread() {
    let data = Data::new(&[50_000, 100], None, |x| x as f32);
    let mut criterion = Criterion::new(&Options::new(100).threads(3)).unwrap();
    // The first field: pages of addresses that the process has.
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: the call only reads a local variable.
    let set = |bytes| unsafe { libc::setrlimit(libc::RLIMIT_AS, &libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY }) };
    // A stack of Rust's threads has 2 MiB.
    assert_eq!(set(pages * 4096 + (1 << 20)), 0);
    let loss = criterion.forward(&data.batch(), None, None);
    assert_eq!((loss.is_ok(), threads_of_the_library()), (true, 0), "{loss:?}");
    assert_eq!(set(libc::RLIM_INFINITY), 0);
    let mut single = Criterion::new(&Options::new(100).threads(1)).unwrap();
    single.forward(&data.batch(), None, None).unwrap();
    assert!((0..100).all(|class| criterion.sums(class) == single.sums(class)) && criterion.counts() == single.counts());
}

#[test]
fn where_no_thread_can_be_made_the_callers_does_the_work() {
    let (passed, said) = alone::run_alone("without_room_for_a_thread", &[]);
    assert!(passed, "{said}");
}

/// Processor time of the process so far.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in a local variable.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn threads_without_work_sleep() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut criterion = Criterion::new(&Options::new(100).threads(4)).unwrap();
    forward(&mut criterion, 50_000);
    let before = processor_time();
    std::thread::sleep(Duration::from_millis(300));
    let used = processor_time() - before;
    assert!(used < Duration::from_millis(30), "{used:?} of processor time in 300 ms without a call");
}

#[test]
fn two_criteria_do_not_wait_for_each_other() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // While one is at work on large batches, the other one finishes many small ones for each; in turns it would be one for each.
    const LARGE: usize = 20;
    let options = Options::new(100).threads(2);
    let (mut one, mut two) = (Criterion::new(&options).unwrap(), Criterion::new(&options).unwrap());
    let data = Data::new(&[100_000, 100], None, |x| x as f32);
    let (started, start) = std::sync::mpsc::channel();
    let calls = std::thread::scope(|scope| {
        let long = scope.spawn(|| {
            started.send(()).unwrap();
            for _ in 0..LARGE {
                one.forward(&data.batch(), None, None).unwrap();
            }
            Instant::now()
        });
        start.recv().unwrap();
        let small = Data::new(&[64, 100], None, |x| x as f32);
        let mut ends = Vec::new();
        while !long.is_finished() {
            two.forward(&small.batch(), None, None).unwrap();
            ends.push(Instant::now());
        }
        let end = long.join().unwrap();
        ends.iter().filter(|&&call| call < end).count()
    });
    assert!(calls > 10 * LARGE, "{calls} small calls of one criterion during {LARGE} large ones of another");
}
