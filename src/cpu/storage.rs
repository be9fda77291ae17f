//! The types that logits and gradients are stored in, and the arithmetic that their rows are computed in.
//!
//! Kernels for few classes know f32 and f64 alone: 16-bit numbers are widened before them and rounded after them, vector by vector. The kernel for
//! many classes reads and writes rows as they are stored.
#![allow(unsafe_code, reason = "entries are read and written through the caller's addresses, after all checks")]

use half::{bf16, f16};

use super::lanes::{Halves, Lanes, Real, Vectors};
use super::memory::prefetch;
use crate::tensor::DType;

/// The vectors, at a level, in which rows stored as `L` are computed.
pub(super) type LanesOf<L, V> = <<L as Storage>::Real as Real>::Lanes<V>;

/// A type that logits are stored in.
pub(super) trait Storage: Copy {
    const DTYPE: DType;
    /// The arithmetic of such rows: f64 for f64, otherwise f32.
    type Real: Arithmetic;
    /// Exact.
    fn widen(self) -> Self::Real;
    /// Rounds once, half to even.
    fn narrow(value: Self::Real) -> Self;
    /// Widens the first numbers of a slice, which has at least a vector of them.
    fn load<V: Vectors>(from: &[Self]) -> LanesOf<Self, V>;
    /// Widens all numbers of a shorter slice, followed by 0.
    fn load_part<V: Vectors>(from: &[Self]) -> LanesOf<Self, V>;
    /// Rounds once, half to even, to a slice, which has room for at least a vector.
    fn store<V: Vectors>(lanes: LanesOf<Self, V>, to: &mut [Self]);
    /// As [`store`](Self::store), as many lanes as a shorter slice has room for.
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

/// Copies fewer than 16 numbers by at most four register moves: a copy of unknown length would be a call of memcpy.
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

/// The first vector of a slice; of a shorter slice all of it, followed by 0.
#[inline(always)]
pub(super) fn load_padded<L: Storage, V: Vectors>(from: &[L]) -> LanesOf<L, V> {
    if from.len() >= LanesOf::<L, V>::WIDTH { L::load::<V>(from) } else { L::load_part::<V>(from) }
}

/// Stores a vector, or as many lanes as there is room for.
#[inline(always)]
pub(super) fn store_clipped<L: Storage, V: Vectors>(lanes: LanesOf<L, V>, to: &mut [L]) {
    if to.len() >= LanesOf::<L, V>::WIDTH { L::store::<V>(lanes, to) } else { L::store_part::<V>(lanes, to) }
}

/// As [`load_padded`], widened from f32.
#[inline(always)]
pub(super) fn load_padded_f32<R: Real, V: Vectors>(from: &[f32]) -> R::Lanes<V> {
    if from.len() >= R::Lanes::<V>::WIDTH { Lanes::load_f32(from) } else { Lanes::load_f32_part(from) }
}

/// An arithmetic, with access to memory of any type that is computed in it.
pub(super) trait Arithmetic: Real + Storage<Real = Self> {
    /// Reads and widens an entry.
    ///
    /// # Safety
    /// `from` is the address of an entry of this type, which is computed in `Self`, and can be read.
    unsafe fn read(dtype: DType, from: *const u8) -> Self;

    /// Rounds once, half to even, and writes an entry.
    ///
    /// # Safety
    /// `to` is the address of an entry of this type, which is computed in `Self`, and can be written.
    unsafe fn write(dtype: DType, value: Self, to: *mut u8);

    /// Widens `count` contiguous entries to whole vectors, with a stride of `stride` numbers from vector to vector; the last is padded with 0.
    /// Prefetches what lies `ahead` bytes from the entries of each vector.
    ///
    /// # Safety
    /// The entries are of this type, which is computed in `Self`. They can be read, and nothing writes them meanwhile.
    unsafe fn widen_all<V: Vectors>(dtype: DType, from: *const u8, count: usize, to: &mut [Self], stride: usize, ahead: Option<isize>);

    /// The inverse of [`widen_all`](Self::widen_all): rounds once, half to even.
    ///
    /// # Safety
    /// The entries are of this type, which is computed in `Self`. They can be written, and nothing else accesses them meanwhile.
    unsafe fn narrow_all<V: Vectors>(dtype: DType, from: &[Self], stride: usize, to: *mut u8, count: usize, ahead: Option<isize>);
}

macro_rules! arithmetic {
    ($real:ident: $($dtype:ident is $storage:ident),*) => {
        impl Arithmetic for $real {
            #[inline(always)]
            unsafe fn read(dtype: DType, from: *const u8) -> $real {
                // SAFETY: the caller promises an entry of this type that can be read; tensors are aligned.
                unsafe {
                    match dtype {
                        $(DType::$dtype => from.cast::<$storage>().read().widen(),)*
                        _ => from.cast::<$real>().read(),
                    }
                }
            }
            #[inline(always)]
            unsafe fn write(dtype: DType, value: $real, to: *mut u8) {
                // SAFETY: the caller promises an entry of this type that can be written; tensors are aligned.
                unsafe {
                    match dtype {
                        $(DType::$dtype => to.cast::<$storage>().write(Storage::narrow(value)),)*
                        _ => to.cast::<$real>().write(value),
                    }
                }
            }
            #[inline(always)]
            unsafe fn widen_all<V: Vectors>(dtype: DType, from: *const u8, count: usize, to: &mut [$real], stride: usize, ahead: Option<isize>) {
                // SAFETY: the caller promises `count` entries of this type that can be read and that nothing writes; tensors are aligned.
                unsafe {
                    match dtype {
                        $(DType::$dtype => widen_all::<$storage, V>(std::slice::from_raw_parts(from.cast(), count), to, stride, ahead),)*
                        _ => widen_all::<$real, V>(std::slice::from_raw_parts(from.cast(), count), to, stride, ahead),
                    }
                }
            }
            #[inline(always)]
            unsafe fn narrow_all<V: Vectors>(dtype: DType, from: &[$real], stride: usize, to: *mut u8, count: usize, ahead: Option<isize>) {
                // SAFETY: the caller promises exclusive access to `count` entries of this type; tensors are aligned.
                unsafe {
                    match dtype {
                        $(DType::$dtype => narrow_all::<$storage, V>(from, stride, std::slice::from_raw_parts_mut(to.cast(), count), ahead),)*
                        _ => narrow_all::<$real, V>(from, stride, std::slice::from_raw_parts_mut(to.cast(), count), ahead),
                    }
                }
            }
        }
    };
}
arithmetic!(f32: Bf16 is bf16, F16 is f16);
arithmetic!(f64:);

/// [`Arithmetic::widen_all`] for entries stored as `L`.
#[inline(always)]
fn widen_all<L: Storage, V: Vectors>(from: &[L], to: &mut [L::Real], stride: usize, ahead: Option<isize>) {
    let width = LanesOf::<L, V>::WIDTH;
    let mut whole = from.chunks_exact(width);
    let mut at = 0;
    for from in &mut whole {
        if let Some(ahead) = ahead {
            prefetch(from.as_ptr().cast::<u8>().wrapping_offset(ahead));
        }
        L::load::<V>(from).store(&mut to[at..at + width]);
        at += stride;
    }
    if !whole.remainder().is_empty() {
        L::load_part::<V>(whole.remainder()).store(&mut to[at..at + width]);
    }
}

/// [`Arithmetic::narrow_all`] for entries stored as `L`.
#[inline(always)]
fn narrow_all<L: Storage, V: Vectors>(from: &[L::Real], stride: usize, to: &mut [L], ahead: Option<isize>) {
    let width = LanesOf::<L, V>::WIDTH;
    let mut whole = to.chunks_exact_mut(width);
    let mut at = 0;
    for to in &mut whole {
        if let Some(ahead) = ahead {
            prefetch(to.as_ptr().cast::<u8>().wrapping_offset(ahead));
        }
        L::store::<V>(Lanes::load(&from[at..at + width]), to);
        at += stride;
    }
    let rest = whole.into_remainder();
    if !rest.is_empty() {
        L::store_part::<V>(Lanes::load(&from[at..at + width]), rest);
    }
}
