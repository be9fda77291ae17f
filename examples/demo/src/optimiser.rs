//! Stochastic gradient descent with momentum and a cosine schedule. Unlike the optimisers of candle-nn it can be saved.

use std::collections::HashMap;
use std::f64::consts::PI;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Tensor, Var};

use crate::network::Network;

const MOMENTUM: f32 = 0.9;

pub struct Optimiser {
    velocities: Vec<Tensor>,
    weight_decay: f32,
}

impl Optimiser {
    pub fn new(network: &Network, weight_decay: f64) -> Result<Self> {
        let zeros = |variable: &Var| Ok(variable.as_detached_tensor().zeros_like()?);
        Ok(Self { velocities: network.variables().map(zeros).collect::<Result<_>>()?, weight_decay: weight_decay as f32 })
    }

    pub fn step(&mut self, network: &Network, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        let accelerate = Accelerate { weight_decay: self.weight_decay };
        let walk = Walk { learning_rate: learning_rate as f32 };
        for (variable, velocity) in network.variables().zip(&self.velocities) {
            let gradient = gradients.get(variable).context("a variable without gradient")?.contiguous()?;
            velocity.inplace_op3(&gradient, variable, &accelerate)?;
            variable.inplace_op2(velocity, &walk)?;
        }
        Ok(())
    }

    /// Returns the named tensors for a checkpoint.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.velocities.iter().enumerate().map(|(i, velocity)| (format!("velocity.{i}"), velocity.clone()))
    }

    pub fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (i, velocity) in self.velocities.iter_mut().enumerate() {
            *velocity = tensors.get(&format!("velocity.{i}")).with_context(|| format!("velocity.{i} is missing"))?.clone();
        }
        Ok(())
    }
}

/// Returns the learning rate of a step, which decreases from `peak` at the first step to 0 after the last one
/// (Loshchilov and Hutter 2017).
pub fn cosine(peak: f64, step: usize, steps: usize) -> f64 {
    peak * 0.5 * (1.0 + (PI * step as f64 / steps as f64).cos())
}

/// velocity = momentum * velocity + gradient + weight decay * value. In place, like [`Walk`]: creating new tensors in
/// every step would take longer than the arithmetic.
struct Accelerate {
    weight_decay: f32,
}

impl InplaceOp3 for Accelerate {
    fn name(&self) -> &'static str {
        "accelerate"
    }

    fn cpu_fwd(
        &self,
        velocity: &mut CpuStorage,
        _: &Layout,
        gradient: &CpuStorage,
        _: &Layout,
        value: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<()> {
        let (gradient, value) = (gradient.as_slice::<f32>()?, value.as_slice::<f32>()?);
        let CpuStorage::F32(velocity) = velocity else { candle_core::bail!("velocities are f32") };
        for ((velocity, gradient), value) in velocity.iter_mut().zip(gradient).zip(value) {
            *velocity = MOMENTUM * *velocity + gradient + self.weight_decay * value;
        }
        Ok(())
    }
}

/// value -= learning rate * velocity.
struct Walk {
    learning_rate: f32,
}

impl InplaceOp2 for Walk {
    fn name(&self) -> &'static str {
        "walk"
    }

    fn cpu_fwd(&self, value: &mut CpuStorage, _: &Layout, velocity: &CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let velocity = velocity.as_slice::<f32>()?;
        let CpuStorage::F32(value) = value else { candle_core::bail!("weights are f32") };
        for (value, velocity) in value.iter_mut().zip(velocity) {
            *value -= self.learning_rate * velocity;
        }
        Ok(())
    }
}
