//! Memory of any dtype, and views of it.

use ols::{DType, TensorMut, TensorRef, bf16, f16};

use super::model::View;

/// A block of elements.
#[derive(Clone, Debug)]
pub enum Buffer {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
}

macro_rules! each {
    ($buffer:expr, $vec:ident => $body:expr) => {
        match $buffer {
            Buffer::F32($vec) => $body,
            Buffer::F64($vec) => $body,
            Buffer::F16($vec) => $body,
            Buffer::Bf16($vec) => $body,
            Buffer::I64($vec) => $body,
            Buffer::I32($vec) => $body,
            Buffer::U8($vec) => $body,
        }
    };
}

impl Buffer {
    /// `length` elements that a view does not name: a number that no result has.
    pub fn unused(dtype: DType, length: usize) -> Self {
        match dtype {
            DType::F32 => Self::F32(vec![77.0; length]),
            DType::F64 => Self::F64(vec![77.0; length]),
            DType::F16 => Self::F16(vec![f16::from_f32(77.0); length]),
            DType::Bf16 => Self::Bf16(vec![bf16::from_f32(77.0); length]),
            DType::I64 => Self::I64(vec![77; length]),
            DType::I32 => Self::I32(vec![77; length]),
            DType::U8 => Self::U8(vec![77; length]),
            other => unimplemented!("{other}"),
        }
    }

    /// Memory for `view` with these numbers in logical order, each rounded once to the dtype.
    pub fn numbers(dtype: DType, view: &View, values: &[f64]) -> Self {
        let mut buffer = Self::unused(dtype, view.length());
        for (position, &value) in view.positions().into_iter().zip(values) {
            match &mut buffer {
                Self::F32(v) => v[position] = value as f32,
                Self::F64(v) => v[position] = value,
                Self::F16(v) => v[position] = f16::from_f64(value),
                Self::Bf16(v) => v[position] = bf16::from_f64(value),
                Self::I64(v) => v[position] = value as i64,
                Self::I32(v) => v[position] = value as i32,
                Self::U8(v) => v[position] = value as u8,
            }
        }
        buffer
    }

    /// As [`numbers`](Self::numbers), from integers.
    pub fn integers(dtype: DType, view: &View, values: &[i64]) -> Self {
        let mut buffer = Self::unused(dtype, view.length());
        for (position, &value) in view.positions().into_iter().zip(values) {
            match &mut buffer {
                Self::I64(v) => v[position] = value,
                Self::I32(v) => v[position] = i32::try_from(value).expect("the target fits its dtype"),
                Self::U8(v) => v[position] = u8::try_from(value).expect("the target fits its dtype"),
                _ => return Self::numbers(dtype, view, &values.iter().map(|&value| value as f64).collect::<Vec<_>>()),
            }
        }
        buffer
    }

    /// The element at `position`, widened.
    pub fn get(&self, position: usize) -> f64 {
        match self {
            Self::F32(v) => v[position].into(),
            Self::F64(v) => v[position],
            Self::F16(v) => v[position].into(),
            Self::Bf16(v) => v[position].into(),
            Self::I64(v) => v[position] as f64,
            Self::I32(v) => v[position].into(),
            Self::U8(v) => v[position].into(),
        }
    }

    /// The elements of `view` in logical order, widened.
    pub fn values(&self, view: &View) -> Vec<f64> {
        view.positions().into_iter().map(|position| self.get(position)).collect()
    }

    /// The bits of every element; NaNs compare equal here when they are the same NaN.
    pub fn bits(&self) -> Vec<u64> {
        match self {
            Self::F32(v) => v.iter().map(|x| x.to_bits().into()).collect(),
            Self::F64(v) => v.iter().map(|x| x.to_bits()).collect(),
            Self::F16(v) => v.iter().map(|x| x.to_bits().into()).collect(),
            Self::Bf16(v) => v.iter().map(|x| x.to_bits().into()).collect(),
            Self::I64(v) => v.iter().map(|&x| x as u64).collect(),
            Self::I32(v) => v.iter().map(|&x| x as u64).collect(),
            Self::U8(v) => v.iter().map(|&x| x.into()).collect(),
        }
    }

    /// The bits of the elements of `view` in logical order.
    pub fn bits_of(&self, view: &View) -> Vec<u64> {
        let bits = self.bits();
        view.positions().into_iter().map(|position| bits[position]).collect()
    }

    /// A view to read.
    pub fn view(&self, view: &View) -> ols::Result<TensorRef<'_>> {
        each!(self, v => TensorRef::with_strides(v, &view.shape, view.offset, &view.strides()))
    }

    /// A view to write.
    pub fn view_mut(&mut self, view: &View) -> ols::Result<TensorMut<'_>> {
        each!(self, v => TensorMut::with_strides(v, &view.shape, view.offset, &view.strides()))
    }
}
