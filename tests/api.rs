//! What a Rust program may rely on beyond the functions: which types cross threads, are copied, compared, printed.

use std::error::Error as StdError;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::{RefUnwindSafe, UnwindSafe};

use ols::reference::{Outcome, Reference, Samples};
use ols::{
    Batch, Counter, Criterion, CudaStream, DType, Device, DeviceKind, EmptyClass, Error, ErrorKind, Initial, Mode, Options, Preset,
    Reduction, Report, StatisticsMut, TensorMut, TensorRef, Update,
};

/// Fails to compile where a type lacks a trait.
macro_rules! assert_all {
    ($($ty:ty),+ => $($bound:tt)+) => {{
        const fn proven<T: $($bound)+>() {}
        $( proven::<$ty>(); )+
    }};
}

const _: () = {
    assert_all!(
        Criterion, Options, Initial, Report, Error, ErrorKind, CudaStream, DType, Device, DeviceKind, EmptyClass, Mode, Preset, Reduction, Update,
        Counter, TensorRef<'static>, TensorMut<'static>, Batch<'static>, Batch<'static, TensorMut<'static>>, StatisticsMut<'static>,
        Reference, Outcome, Samples<'static>
        => Send + Sync + Debug
    );
    assert_all!(ErrorKind, DType, Device, DeviceKind, EmptyClass, Mode, Preset, Reduction, Update, Counter => Copy + Eq + Hash);
    assert_all!(Options, Initial, Error, Report => Clone + PartialEq);
    assert_all!(TensorRef<'static>, CudaStream => Copy);
    assert_all!(Batch<'static> => Clone);
    assert_all!(Mode, EmptyClass, Reduction, Update, Initial, Device, DeviceKind, Report, CudaStream => Default);
    assert_all!(DType, Device, Error => Display);
    assert_all!(Error => StdError + UnwindSafe + RefUnwindSafe + 'static);
};

/// A loader's thread makes the batch, the trainer's uses it.
#[test]
fn a_batch_is_made_in_one_thread_and_used_in_another() {
    let (logits, targets) = ([2f32, 0.1, 0.3, 0.2], [0i64, 1]);
    let mut gradient = [0f32; 4];
    let grad = TensorMut::new(&mut gradient, &[2, 2]).unwrap();
    let mut criterion = Criterion::new(&Options::new(2)).unwrap();
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| Batch::new(TensorRef::new(&logits, &[2, 2]).unwrap(), targets[..].into()));
        let batch = loader.join().unwrap();
        let criterion = &mut criterion;
        scope.spawn(move || criterion.forward(&batch, None, Some(grad)).unwrap());
    });
    assert_eq!(criterion.counts(), [1, 0]);
    assert!(gradient[0] < 0.0);
}

/// K x K numbers are nothing to read in a log.
#[test]
fn a_criterion_prints_what_it_is_and_not_what_it_holds() {
    let text = format!("{:?}", Criterion::new(&Options::new(100)).unwrap());
    assert!(text.contains("classes: 100") && text.contains("epoch: 0") && text.len() < 1000, "{text}");
}
