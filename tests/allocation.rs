//! A warm call allocates nothing, on no thread: neither a forward pass, nor a gradient, nor the end of an epoch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ols::{Batch, Criterion, Element, Logit, Options, TensorMut, TensorRef, bf16};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the third of three rounds of calls.
fn of_a_warm_round<L: Logit + Element + Default + Copy>(shape: &[usize], threads: usize, weights: bool) -> usize {
    let (classes, inner) = (shape[1], shape.get(2).copied().unwrap_or(1));
    let samples = shape[0] * inner;
    let mut options = Options::new(classes).threads(threads);
    if weights {
        options = options.class_weights(vec![0.5; classes]);
    }
    let mut criterion = Criterion::new(&options).unwrap();
    let logits = vec![L::default(); samples * classes];
    // Class 0 is the first of equal logits, so its samples are classified right.
    let targets: Vec<i32> = (0..samples).map(|sample| (sample % 3) as i32).collect();
    let of_targets = if shape.len() == 3 { vec![shape[0], shape[2]] } else { vec![shape[0]] };
    let mut gradient = logits.clone();
    let mut loss = L::Loss::default();
    let mut allocations = 0;
    for _ in 0..3 {
        let batch = Batch::new(TensorRef::new(&logits, shape).unwrap(), TensorRef::new(&targets, &of_targets).unwrap());
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        criterion.forward(&batch, Some(TensorMut::scalar(&mut loss)), Some(TensorMut::new(&mut gradient, shape).unwrap())).unwrap();
        criterion.backward(&batch, TensorMut::new(&mut gradient, shape).unwrap()).unwrap();
        criterion.next_epoch().unwrap();
        allocations = ALLOCATIONS.load(Ordering::SeqCst) - before;
    }
    allocations
}

// One test: the tests of a file run at the same time and would count each other's.
#[test]
fn a_warm_call_allocates_nothing() {
    for threads in [1, 3] {
        for shape in [&[128, 10][..], &[40_000, 10], &[256, 1_000], &[2_000, 300], &[100, 3_000], &[8, 21, 4_096], &[2, 150, 1_024]] {
            assert_eq!(of_a_warm_round::<f32>(shape, threads, false), 0, "{shape:?}, {threads} threads, f32");
            assert_eq!(of_a_warm_round::<bf16>(shape, threads, true), 0, "{shape:?}, {threads} threads, bf16, class weights");
            assert_eq!(of_a_warm_round::<f64>(shape, threads, false), 0, "{shape:?}, {threads} threads, f64");
        }
    }
}
