//! A multilayer perceptron with ReLU.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use rand::Rng;
use rand_distr::{Distribution, Normal};

pub struct Network {
    layers: Vec<Layer>,
}

struct Layer {
    weight: Var,
    bias: Var,
}

impl Network {
    /// Draws weights from He's normal distribution (He et al. 2015), with variance 2 / inputs; biases are initially 0.
    pub fn new(sizes: &[usize], generator: &mut impl Rng) -> Result<Self> {
        let layers = sizes.windows(2).map(|size| {
            let (inputs, outputs) = (size[0], size[1]);
            let normal = Normal::new(0.0, (2.0 / inputs as f32).sqrt())?;
            let weights: Vec<f32> = normal.sample_iter(&mut *generator).take(inputs * outputs).collect();
            let weight = Tensor::from_vec(weights, (inputs, outputs), &Device::Cpu)?;
            let bias = vec![0f32; outputs];
            Ok(Layer { weight: Var::from_tensor(&weight)?, bias: Var::from_tensor(&Tensor::from_vec(bias, outputs, &Device::Cpu)?)? })
        });
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// Computes logits (N, classes) from images (N, pixels).
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let (last, hidden) = self.layers.split_last().context("a network without layers")?;
        let mut activations = images.clone();
        for layer in hidden {
            activations = layer.forward(&activations)?.relu()?;
        }
        last.forward(&activations)
    }

    pub fn variables(&self) -> impl Iterator<Item = &Var> {
        self.layers.iter().flat_map(|layer| [&layer.weight, &layer.bias])
    }

    /// Returns the named tensors for a checkpoint.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.variables().enumerate().map(|(i, variable)| (format!("network.{i}"), variable.as_detached_tensor()))
    }

    pub fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (i, variable) in self.variables().enumerate() {
            let tensor = tensors.get(&format!("network.{i}")).with_context(|| format!("network.{i} is missing"))?;
            ensure!(tensor.shape() == variable.shape(), "network.{i} has another shape");
            variable.set(tensor)?;
        }
        Ok(())
    }
}

impl Layer {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        Ok(input.matmul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}
