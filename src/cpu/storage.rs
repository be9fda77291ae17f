//! How logits and gradients are stored, and the arithmetic that their rows are computed in.
//!
//! Kernels for few classes know the arithmetic alone, f32 or f64: numbers of 16 bits are widened before and rounded after them, whole vectors at a time.
//! That for many classes reads and writes rows as they are stored.
#![allow(unsafe_code, reason = "entries are read and written through the caller's addresses, after all checks")]

use half::{bf16, f16};

use super::lanes::{Halves, Lanes, Real, Vectors};
use super::memory::prefetch;
use crate::tensor::DType;

/// The vectors that rows stored as `L` are computed with at a level.
pub(super) type LanesOf<L, V> = <<L as Storage>::Real as Real>::Lanes<V>;

/// How a logit is stored, and the arithmetic that its row is computed in.
pub(super) trait Storage: Copy {
    const DTYPE: DType;
    /// f64 for f64, else f32.
    type Real: Arithmetic;
    /// Exact.
    fn widen(self) -> Self::Real;
    /// Rounds once, half to even.
    fn narrow(value: Self::Real) -> Self;
    /// Widens the first numbers of a slice that has a vector's worth or more.
    fn load<V: Vectors>(from: &[Self]) -> LanesOf<Self, V>;
    /// Widens all numbers of a shorter slice; 0 behind them.
    fn load_part<V: Vectors>(from: &[Self]) -> LanesOf<Self, V>;
    /// Rounds once, half to even, to a slice of a vector's worth or more.
    fn store<V: Vectors>(lanes: LanesOf<Self, V>, to: &mut [Self]);
    /// As many lanes as a shorter slice takes.
    fn store_part<V: Vectors>(lanes: LanesOf<Self, V>, to: &mut [Self]);
}

macro_rules! real {
    ($real:ident, $dtype:ident) => {
        impl Storage for $real {
            const DTYPE: DType = DType::$dtype;
            type Real = $real;
            #[inline(always)]
            fn widen(self) -> $real {
                self
            }
            #[inline(always)]
            fn narrow(value: $real) -> $real {
                value
            }
            #[inline(always)]
            fn load<V: Vectors>(from: &[$real]) -> LanesOf<$real, V> {
                Lanes::load(from)
            }
            #[inline(always)]
            fn load_part<V: Vectors>(from: &[$real]) -> LanesOf<$real, V> {
                Lanes::load_part(from)
            }
            #[inline(always)]
            fn store<V: Vectors>(lanes: LanesOf<$real, V>, to: &mut [$real]) {
                lanes.store(to);
            }
            #[inline(always)]
            fn store_part<V: Vectors>(lanes: LanesOf<$real, V>, to: &mut [$real]) {
                lanes.store_part(to);
            }
        }
    };
}
real!(f32, F32);
real!(f64, F64);

/// Copies less than 16 numbers by at most four moves of registers, where a copy of any length would be a call.
#[inline(always)]
fn copy_part<T: Copy>(from: &[T], to: &mut [T]) {
    let mut at = 0;
    for size in [8, 4, 2, 1] {
        if from.len() & size != 0 {
            to[at..at + size].copy_from_slice(&from[at..at + size]);
            at += size;
        }
    }
}

macro_rules! half {
    ($half:ident, $dtype:ident, $from:ident, $to:ident) => {
        impl Storage for $half {
            const DTYPE: DType = DType::$dtype;
            type Real = f32;
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(value: f32) -> $half {
                $half::from_f32(value)
            }
            #[inline(always)]
            fn load<V: Vectors>(from: &[$half]) -> V::F32 {
                V::F32::$from(from)
            }
            #[inline(always)]
            fn load_part<V: Vectors>(from: &[$half]) -> V::F32 {
                let mut lanes = [$half::ZERO; 16];
                copy_part(from, &mut lanes);
                V::F32::$from(&lanes)
            }
            #[inline(always)]
            fn store<V: Vectors>(lanes: V::F32, to: &mut [$half]) {
                lanes.$to(to);
            }
            #[inline(always)]
            fn store_part<V: Vectors>(lanes: V::F32, to: &mut [$half]) {
                let mut halves = [$half::ZERO; 16];
                lanes.$to(&mut halves);
                copy_part(&halves[..to.len()], to);
            }
        }
    };
}
half!(bf16, Bf16, from_bf16, to_bf16);
half!(f16, F16, from_f16, to_f16);

/// An arithmetic, and its numbers as they are stored. Entries have one of the types that are computed in it.
pub(super) trait Arithmetic: Real + Storage<Real = Self> {
    /// # Safety
    /// `from` is the address of an entry that can be read.
    unsafe fn read(dtype: DType, from: *const u8) -> Self;

    /// Rounds once, half to even.
    ///
    /// # Safety
    /// `to` is the address of an entry that can be written.
    unsafe fn write(dtype: DType, value: Self, to: *mut u8);

    /// Widens `count` entries that lie side by side to whole vectors, which begin `apart` numbers from each other; 0 behind the last. Asks for what lies
    /// `ahead` bytes from each vector's entries.
    ///
    /// # Safety
    /// The entries can be read, and nothing writes them meanwhile.
    unsafe fn widen_all<V: Vectors>(dtype: DType, from: *const u8, count: usize, to: &mut [Self], apart: usize, ahead: Option<isize>);

    /// The reverse of [`widen_all`](Self::widen_all), rounded once, half to even.
    ///
    /// # Safety
    /// The entries can be written, and nothing else uses them meanwhile.
    unsafe fn narrow_all<V: Vectors>(dtype: DType, from: &[Self], apart: usize, to: *mut u8, count: usize, ahead: Option<isize>);
}

macro_rules! arithmetic {
    ($real:ident: $($dtype:ident is $storage:ident),*) => {
        impl Arithmetic for $real {
            #[inline(always)]
            unsafe fn read(dtype: DType, from: *const u8) -> $real {
                // SAFETY: the caller's promise; tensors are aligned.
                unsafe {
                    match dtype {
                        $(DType::$dtype => from.cast::<$storage>().read().widen(),)*
                        _ => from.cast::<$real>().read(),
                    }
                }
            }
            #[inline(always)]
            unsafe fn write(dtype: DType, value: $real, to: *mut u8) {
                // SAFETY: as in `read`.
                unsafe {
                    match dtype {
                        $(DType::$dtype => to.cast::<$storage>().write(Storage::narrow(value)),)*
                        _ => to.cast::<$real>().write(value),
                    }
                }
            }
            #[inline(always)]
            unsafe fn widen_all<V: Vectors>(dtype: DType, from: *const u8, count: usize, to: &mut [$real], apart: usize, ahead: Option<isize>) {
                // SAFETY: as in `read`.
                unsafe {
                    match dtype {
                        $(DType::$dtype => widen_all::<$storage, V>(std::slice::from_raw_parts(from.cast(), count), to, apart, ahead),)*
                        _ => widen_all::<$real, V>(std::slice::from_raw_parts(from.cast(), count), to, apart, ahead),
                    }
                }
            }
            #[inline(always)]
            unsafe fn narrow_all<V: Vectors>(dtype: DType, from: &[$real], apart: usize, to: *mut u8, count: usize, ahead: Option<isize>) {
                // SAFETY: as in `read`.
                unsafe {
                    match dtype {
                        $(DType::$dtype => narrow_all::<$storage, V>(from, apart, std::slice::from_raw_parts_mut(to.cast(), count), ahead),)*
                        _ => narrow_all::<$real, V>(from, apart, std::slice::from_raw_parts_mut(to.cast(), count), ahead),
                    }
                }
            }
        }
    };
}
arithmetic!(f32: Bf16 is bf16, F16 is f16);
arithmetic!(f64:);

/// [`Arithmetic::widen_all`] for a type of storage.
#[inline(always)]
fn widen_all<L: Storage, V: Vectors>(from: &[L], to: &mut [L::Real], apart: usize, ahead: Option<isize>) {
    let width = LanesOf::<L, V>::WIDTH;
    let mut whole = from.chunks_exact(width);
    let mut at = 0;
    for from in &mut whole {
        if let Some(ahead) = ahead {
            prefetch(from.as_ptr().cast::<u8>().wrapping_offset(ahead));
        }
        L::load::<V>(from).store(&mut to[at..at + width]);
        at += apart;
    }
    if !whole.remainder().is_empty() {
        L::load_part::<V>(whole.remainder()).store(&mut to[at..at + width]);
    }
}

/// [`Arithmetic::narrow_all`] for a type of storage.
#[inline(always)]
fn narrow_all<L: Storage, V: Vectors>(from: &[L::Real], apart: usize, to: &mut [L], ahead: Option<isize>) {
    let width = LanesOf::<L, V>::WIDTH;
    let mut whole = to.chunks_exact_mut(width);
    let mut at = 0;
    for to in &mut whole {
        if let Some(ahead) = ahead {
            prefetch(to.as_ptr().cast::<u8>().wrapping_offset(ahead));
        }
        L::store::<V>(Lanes::load(&from[at..at + width]), to);
        at += apart;
    }
    let rest = whole.into_remainder();
    if !rest.is_empty() {
        L::store_part::<V>(Lanes::load(&from[at..at + width]), rest);
    }
}
