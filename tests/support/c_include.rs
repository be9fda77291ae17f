//! The cases as C, for programs that read no JSON. Made from the committed JSON, so that not a bit can differ.

use std::fmt::Write;

use super::hex::Hex;
use super::model::{Action, Case, CaseBatch, CaseInitial, Expect, Failure, File, Integers, Named, Numbers, Targets, Values, View};

/// The text of `tests/c/vectors.inc`.
pub fn render(files: &[(&str, File)]) -> String {
    let mut c = Writer { text: include_str!("c_header.txt").to_owned(), arrays: 0 };
    let mut cases = vec![];
    for (name, file) in files {
        for case in &file.cases {
            cases.push(c.case(name, case));
        }
    }
    let _ = writeln!(c.text, "static const vec_case vec_cases[] = {{\n{}\n}};", cases.join(",\n"));
    c.text
}

struct Writer {
    text: String,
    arrays: usize,
}

impl Writer {
    /// Writes an array and returns its name, or NULL where it is empty.
    fn array(&mut self, of: &str, items: &[String]) -> String {
        if items.is_empty() {
            return "NULL".to_owned();
        }
        self.arrays += 1;
        let name = format!("vec_{}", self.arrays);
        let _ = writeln!(self.text, "static const {of} {name}[] = {{{}}};", items.join(","));
        name
    }

    fn doubles(&mut self, values: &[Hex]) -> String {
        self.array("double", &values.iter().map(double).collect::<Vec<_>>())
    }

    fn integers<T: ToString>(&mut self, values: &[T]) -> String {
        self.array("int64_t", &values.iter().map(|value| integer(&value.to_string())).collect::<Vec<_>>())
    }

    fn case(&mut self, file: &str, case: &Case) -> String {
        let _ = writeln!(self.text, "\n/* {file}/{}: {} */", case.name, case.why);
        let batches: Vec<String> = case.batches.iter().map(|batch| self.batch(batch)).collect();
        let batches = self.array("vec_batch", &batches);
        let steps: Vec<String> = case
            .steps
            .iter()
            .map(|step| {
                let action = self.action(&step.action);
                let expect = self.expect(&step.expect);
                format!("{{{action},{expect}}}")
            })
            .collect();
        let (n_steps, n_batches) = (steps.len(), case.batches.len());
        let steps = self.array("vec_step", &steps);
        let o = &case.options;
        let (initial, eps, matrix): (usize, Hex, &[Hex]) = match &o.initial {
            CaseInitial::Smoothing(eps) => (0, *eps, &[]),
            CaseInitial::Uniform => (1, Hex(0.0), &[]),
            CaseInitial::Zero => (2, Hex(0.0), &[]),
            CaseInitial::OneHot => (3, Hex(0.0), &[]),
            CaseInitial::Matrix(matrix) => (4, Hex(0.0), matrix),
        };
        let n_matrix = matrix.len();
        let matrix = self.doubles(matrix);
        let weights = o.class_weights.as_deref().unwrap_or(&[]);
        let class_weights = self.doubles(weights);
        format!(
            "{{\"{file}/{}\",{{{},{},{initial},{},{matrix},{n_matrix},{},{},{},{},{},{class_weights},{},{},{},{}}},{},{batches},{n_batches},{steps},{n_steps}}}",
            case.name,
            o.classes,
            double(&o.alpha),
            double(&eps),
            o.empty_class.0.code(),
            o.min_count,
            double(&o.momentum),
            usize::from(o.freeze_above.is_some()),
            double(&o.freeze_above.unwrap_or_default()),
            weights.len(),
            o.ignore_index,
            o.reduction.0.code(),
            o.mode.0.code(),
            failure(case.error.as_ref()),
        )
    }

    fn batch(&mut self, batch: &CaseBatch) -> String {
        let logits = &batch.logits;
        let (raised, set) = (self.integers(&logits.raised), self.set(&logits.set));
        let targets = self.targets(Some(&batch.targets));
        let weights = self.numbers(batch.sample_weights.as_ref());
        let targets2 = self.targets(batch.targets2.as_ref());
        let lam = self.numbers(batch.lam.as_ref());
        let grad_loss = self.numbers(batch.grad_loss.as_ref());
        format!(
            "{{{{{},{},{},{},{},{raised},{},{set},{}}},{targets},{},{weights},{targets2},{lam},{grad_loss}}}",
            logits.dtype.0.code(),
            view(&logits.view),
            logits.seed,
            logits.exponent,
            usize::from(logits.absolute),
            logits.raised.len(),
            logits.set.len(),
            batch.target_offset,
        )
    }

    fn set(&mut self, set: &[(usize, Hex)]) -> String {
        self.array("vec_set", &set.iter().map(|(index, value)| format!("{{{index},{}}}", double(value))).collect::<Vec<_>>())
    }

    fn targets(&mut self, targets: Option<&Targets>) -> String {
        let Some(targets) = targets else { return format!("{{0,0,{},NULL,0}}", view(&View::new(&[]))) };
        let values = self.integers(&targets.values);
        format!("{{1,{},{},{values},{}}}", targets.dtype.0.code(), view(&targets.view), targets.values.len())
    }

    fn numbers(&mut self, numbers: Option<&Numbers>) -> String {
        let Some(numbers) = numbers else { return format!("{{0,0,{},NULL,0}}", view(&View::new(&[]))) };
        let values = self.doubles(&numbers.values);
        format!("{{1,{},{},{values},{}}}", numbers.dtype.0.code(), view(&numbers.view), numbers.values.len())
    }

    fn action(&mut self, action: &Action) -> String {
        let nowhere = || format!("0,{}", view(&View::new(&[])));
        let there = |v: &Option<View>| v.as_ref().map_or_else(nowhere, |v| format!("1,{}", view(v)));
        let none = nowhere();
        match action {
            Action::Forward { batch, update, loss, grad, in_place } => {
                format!("VEC_FORWARD,{batch},{},{},{},{},0,0,NULL,0", update.0.code(), there(loss), there(grad), usize::from(*in_place))
            }
            Action::Backward { batch, grad } => format!("VEC_BACKWARD,{batch},1,{none},1,{},0,0,0,NULL,0", view(grad)),
            Action::Accumulate { batch, update } => format!("VEC_ACCUMULATE,{batch},{},{none},{none},0,0,0,NULL,0", update.0.code()),
            Action::NextEpoch {} => format!("VEC_NEXT_EPOCH,0,0,{none},{none},0,0,0,NULL,0"),
            Action::SetMode { mode } => format!("VEC_SET_MODE,0,0,{none},{none},0,{},0,NULL,0", mode.0.code()),
            Action::SetAlpha { alpha } => format!("VEC_SET_ALPHA,0,0,{none},{none},0,0,{},NULL,0", double(alpha)),
            Action::SetSoftLabels { values } => {
                let length = values.len();
                let values = self.doubles(values);
                format!("VEC_SET_SOFT_LABELS,0,0,{none},{none},0,0,0,{values},{length}")
            }
            Action::SaveLoad {} => format!("VEC_SAVE_LOAD,0,0,{none},{none},0,0,0,NULL,0"),
        }
    }

    fn expect(&mut self, expect: &Expect) -> String {
        let loss = self.values(expect.loss.as_ref());
        let grad = self.values(expect.grad.as_ref());
        let sum = self.values(expect.grad_abs_sum.as_ref());
        let counts = expect.counts.as_deref().unwrap_or(&[]);
        let n_counts = counts.len();
        let counts = self.integers(counts);
        let sums = match &expect.sums {
            Some(Integers { at, values, atol, rtol }) => {
                let (at, list) = (self.integers(at.as_deref().unwrap_or(&[])), self.integers(values));
                format!("{{1,{at},{list},{},{atol},{}}}", values.len(), double(rtol))
            }
            None => "{0,NULL,NULL,0,0,0}".to_owned(),
        };
        let soft_labels = self.values(expect.soft_labels.as_ref());
        let report = match &expect.report {
            Some(r) => format!(
                "1,{{{},{},{},{},{},{},{},{},{},{},{},{}}}",
                r.epoch,
                r.rows_measured,
                r.rows_kept,
                r.rows_uniform,
                r.rows_initial,
                r.rows_one_hot,
                r.rows_zero,
                r.rows_frozen,
                r.samples_accumulated,
                r.samples_skipped,
                r.classes_full,
                r.targets_out_of_range
            ),
            None => "0,{0,0,0,0,0,0,0,0,0,0,0,0}".to_owned(),
        };
        format!(
            "{{{},{loss},{grad},{sum},{counts},{n_counts},{sums},{},{},{soft_labels},{report}}}",
            failure(expect.error.as_ref()),
            expect.samples_skipped.unwrap_or(-1),
            expect.epoch.unwrap_or(-1),
        )
    }

    fn values(&mut self, values: Option<&Values>) -> String {
        let Some(Values { at, values, atol, rtol }) = values else { return "{0,NULL,NULL,0,0,0}".to_owned() };
        let (at, list) = (self.integers(at.as_deref().unwrap_or(&[])), self.doubles(values));
        format!("{{1,{at},{list},{},{},{}}}", values.len(), double(atol), double(rtol))
    }
}

/// Hexadecimal constants have one zero the less.
fn double(value: &Hex) -> String {
    let text = value.to_string();
    match text.as_str() {
        "nan" => "NAN".to_owned(),
        "inf" => "INFINITY".to_owned(),
        "-inf" => "-INFINITY".to_owned(),
        "0x0p+0" => "0.0".to_owned(),
        "-0x0p+0" => "-0.0".to_owned(),
        _ => text,
    }
}

/// The smallest integer has no literal.
fn integer(text: &str) -> String {
    if text == "-9223372036854775808" { "INT64_MIN".to_owned() } else { text.to_owned() }
}

fn view(view: &View) -> String {
    let ndim = view.shape.len();
    let strides = view.strides();
    let shape: Vec<String> = (0..3).map(|d| view.shape.get(d).copied().unwrap_or(1).to_string()).collect();
    let strides: Vec<String> = (0..3).map(|d| strides.get(d).copied().unwrap_or(0).to_string()).collect();
    format!("{{{ndim},{{{}}},{{{}}},{},{}}}", shape.join(","), strides.join(","), view.offset, view.length())
}

fn failure(failure: Option<&Failure>) -> String {
    match failure {
        Some(Failure { kind, message }) => {
            let message = message.as_ref().map_or("NULL".to_owned(), |message| format!("\"{message}\""));
            format!("VEC_{},{message}", kind.0.name().to_uppercase())
        }
        None => "VEC_OK,NULL".to_owned(),
    }
}
