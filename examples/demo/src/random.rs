//! Random numbers that are determined by a seed, a purpose and an epoch, so that an interrupted run has no generator
//! state to save.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    Split,
    WrongLabels,
    Weights,
    /// The order of the images in an epoch.
    Order(usize),
}

pub fn generator(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(match purpose {
        Purpose::Split => 0,
        Purpose::WrongLabels => 1,
        Purpose::Weights => 2,
        Purpose::Order(epoch) => 3 + epoch as u64,
    });
    generator
}
