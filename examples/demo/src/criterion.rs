//! Stand-in for the `ols` crate until it is there.
use std::path::Path;
use anyhow::Result;

pub enum Initial { Uniform, Smoothing(f64) }
#[derive(Clone, Copy, PartialEq)]
pub enum Mode { Train, Eval }
pub struct Options { classes: usize, alpha: f64, initial: Initial }
impl Options {
    pub fn new(classes: usize) -> Self { Self { classes, alpha: 0.5, initial: Initial::Smoothing(0.1) } }
    pub fn alpha(mut self, a: f64) -> Self { self.alpha = a; self }
    pub fn initial(mut self, i: Initial) -> Self { self.initial = i; self }
}
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Criterion { classes: usize, alpha: f64, soft: Vec<f32>, sum: Vec<f64>, count: Vec<u64>, epoch: i64 }
impl Criterion {
    pub fn new(o: &Options) -> Result<Self> {
        let k = o.classes;
        let soft = (0..k * k).map(|i| match o.initial {
            Initial::Uniform => 1. / k as f32,
            Initial::Smoothing(e) => if i / k == i % k { 1. - e as f32 } else { e as f32 / (k - 1) as f32 },
        }).collect();
        Ok(Self { classes: k, alpha: o.alpha, soft, sum: vec![0.; k * k], count: vec![0; k], epoch: 0 })
    }
    pub fn loss_and_gradient(&mut self, logits: &[f32], targets: &[i64], gradient: &mut [f32]) -> Result<f32> {
        let (k, n) = (self.classes, targets.len());
        let mut loss = 0.;
        for i in 0..n {
            let row = &logits[i * k..][..k];
            let y = targets[i] as usize;
            let max = row.iter().copied().fold(f32::MIN, f32::max);
            let z: f32 = row.iter().map(|v| (v - max).exp()).sum();
            let best = (0..k).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
            for j in 0..k {
                let p = (row[j] - max).exp() / z;
                let q = (1. - self.alpha as f32) * self.soft[y * k + j] + if j == y { self.alpha as f32 } else { 0. };
                loss -= q * (row[j] - max - z.ln());
                gradient[i * k + j] = (p - q) / n as f32;
                if best == y { self.sum[y * k + j] += p as f64; }
            }
            if best == y { self.count[y] += 1; }
        }
        Ok(loss / n as f32)
    }
    pub fn next_epoch(&mut self) -> Result<()> {
        let k = self.classes;
        for j in 0..k { if self.count[j] > 0 { for c in 0..k { self.soft[j * k + c] = (self.sum[j * k + c] / self.count[j] as f64) as f32; } } }
        self.sum.fill(0.); self.count.fill(0); self.epoch += 1;
        Ok(())
    }
    pub fn soft_label(&self, j: usize) -> &[f32] { &self.soft[j * self.classes..][..self.classes] }
    pub fn save(&self, p: impl AsRef<Path>) -> Result<()> { Ok(std::fs::write(p, serde_json::to_vec(self)?)?) }
    pub fn load(&mut self, p: impl AsRef<Path>) -> Result<()> { *self = serde_json::from_slice(&std::fs::read(p)?)?; Ok(()) }
}
