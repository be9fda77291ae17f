//! Where the elements of a tensor lie in memory.

use serde::{Deserialize, Serialize};

/// Where the elements of a tensor lie in a block of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    pub shape: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<isize>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl View {
    /// A row-major view of memory of its own.
    pub fn new(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), strides: None, offset: 0, length: None }
    }

    /// A view with these steps, in a block that is just long enough.
    pub fn strided(shape: &[usize], strides: &[isize]) -> Self {
        let reach = |sign: isize| -> usize {
            shape.iter().zip(strides).map(|(&size, &stride)| size.saturating_sub(1) * (stride * sign).max(0) as usize).sum()
        };
        Self { shape: shape.to_vec(), strides: Some(strides.to_vec()), offset: reach(-1), length: Some(reach(-1) + reach(1) + 1) }
    }

    /// The same, with unused elements before and behind.
    pub fn padded(mut self, before: usize, behind: usize) -> Self {
        self.length = Some(self.length() + before + behind);
        self.offset += before;
        self.strides = Some(self.strides());
        self
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of the block of memory.
    pub fn length(&self) -> usize {
        self.length.unwrap_or_else(|| self.elements())
    }

    pub fn strides(&self) -> Vec<isize> {
        self.strides
            .clone()
            .unwrap_or_else(|| (0..self.shape.len()).map(|d| self.shape[d + 1..].iter().product::<usize>() as isize).collect())
    }

    /// For each element in row-major order: its place in the block, and its number where a dimension of stride 0 counts as index 0.
    pub(super) fn walk(&self) -> Vec<(usize, u64)> {
        let strides = self.strides();
        (0..self.elements())
            .map(|flat| {
                let (mut rest, mut place, mut number, mut step) = (flat, self.offset as isize, 0, 1);
                for d in (0..self.shape.len()).rev() {
                    let index = rest % self.shape[d];
                    rest /= self.shape[d];
                    place += index as isize * strides[d];
                    number += if strides[d] == 0 { 0 } else { index * step };
                    step *= self.shape[d];
                }
                (place as usize, number as u64)
            })
            .collect()
    }

    /// The place of each element in the block, in row-major order.
    pub fn positions(&self) -> Vec<usize> {
        self.walk().into_iter().map(|(position, _)| position).collect()
    }
}
