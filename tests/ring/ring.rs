//! The Rust leg of tests/ring/run, which says what it does.

use ols::{Criterion, Options};

fn joined<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    values.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    let [from, to] = &paths[..] else { return Err("usage: ring IN OUT".into()) };
    let mut criterion = Criterion::new(&Options::new(5))?;
    criterion.load(from)?;
    println!(
        "epoch {} alpha {:.6} ignore_index {} counts {} sums {} soft_labels {}",
        criterion.epoch(),
        criterion.options().alpha,
        criterion.options().ignore_index,
        joined(criterion.counts(), i64::to_string),
        joined(criterion.sums(1), i64::to_string),
        joined(criterion.soft_label(1), |value| format!("{:08x}", value.to_bits())),
    );
    criterion.save(to)?;
    Ok(())
}
