//! The list of conformance cases. Their expectations come from the reference; see `oracle`.

mod builder;
mod epochs;
mod errors;
mod inputs;
mod options;
mod shapes;
mod special;

use ols::DType::{self, Bf16, F16, F32, F64};

use super::model::{Case, File};
use super::oracle;

/// The version of the files' format.
pub const FORMAT: u32 = 1;

const LOGITS: [DType; 4] = [F32, F64, Bf16, F16];

/// What every file says about itself.
const COMMENT: &str = include_str!("comment.txt");

/// All files: their names, and what they hold.
pub fn files() -> Vec<(&'static str, File)> {
    let themes: [(&str, &str, Vec<Case>); 8] = [
        ("sizes", "Every number of classes around the widths of vectors, in every dtype of the logits.", shapes::sizes()),
        ("options", "Every initial matrix, policy, reduction and threshold, over several epochs.", options::options()),
        ("weights", "Class weights, sample weights, the gradient that comes from behind; zeros among them.", inputs::weights()),
        ("targets", "Dtypes and offset of targets, ignored samples, two targets with lam.", inputs::targets()),
        ("special", "Masked classes, rows that are no distribution, huge and peaked rows, ties.", special::special()),
        ("layouts", "Views of every kind for inputs and outputs.", shapes::layouts()),
        ("epochs", "What happens over time: modes, second passes, take-back, saving, given probabilities.", epochs::epochs()),
        ("errors", "Calls that must fail and change nothing.", errors::errors()),
    ];
    let comment: Vec<String> = COMMENT.lines().map(str::to_owned).collect();
    themes
        .into_iter()
        .map(|(name, theme, mut cases)| {
            cases.iter_mut().for_each(oracle::fill);
            (name, File { comment: comment.clone(), format: FORMAT, theme: theme.to_owned(), cases })
        })
        .collect()
}
