//! The conformance vectors: `tests/vectors/*.json` and `tests/c/vectors.inc` are what the executable specification makes, and the library does
//! what they say. `OLS_BLESS=1 cargo test --test conformance` writes them anew.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::hex::Hex;
use support::model::{Case, File};
use support::{c_include, cases, runner};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn path_of(name: &str) -> PathBuf {
    root().join(format!("tests/vectors/{name}.json"))
}

fn blessing() -> bool {
    std::env::var_os("OLS_BLESS").is_some_and(|value| value != "0" && !value.is_empty())
}

/// The text of a file: a line for each case's head, batch and step, so that a difference can be read.
fn text_of(file: &File) -> String {
    let json = |value: &dyn erased::Json| value.to_json();
    let mut text = String::from("{\n\"comment\": [\n");
    text += &file.comment.iter().map(|line| json(line)).collect::<Vec<_>>().join(",\n");
    text += &format!("\n],\n\"format\": {},\n\"theme\": {},\n\"cases\": [", file.format, json(&file.theme));
    let list = |name: &str, items: Vec<String>| {
        if items.is_empty() { String::new() } else { format!(",\n \"{name}\": [\n  {}\n ]", items.join(",\n  ")) }
    };
    let case_text = |case: &Case| {
        let mut text = format!("\n{{\"name\": {}, \"why\": {},\n \"options\": {}", json(&case.name), json(&case.why), json(&case.options));
        if let Some(error) = &case.error {
            text += &format!(",\n \"error\": {}", json(error));
        }
        text += &list("batches", case.batches.iter().map(|batch| json(batch)).collect());
        text += &list("steps", case.steps.iter().map(|step| json(step)).collect());
        text + "}"
    };
    text += &file.cases.iter().map(case_text).collect::<Vec<_>>().join(",");
    text + "\n]\n}\n"
}

/// `serde_json::to_string` for anything.
mod erased {
    pub trait Json {
        fn to_json(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn to_json(&self) -> String {
            serde_json::to_string(self).expect("it can be written as JSON")
        }
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(path_of(name)).unwrap_or_default()
}

fn parse(name: &str) -> File {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("tests/vectors/{name}.json: {error}"))
}

/// The first place where two documents differ by more than the last bits that `exp` and `log` of different platforms differ by.
fn difference(old: &Value, new: &Value, place: &str) -> Option<String> {
    let differs = || Some(format!("{place}: {old} differs from {new}"));
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            if !a.keys().eq(b.keys()) {
                return Some(format!("{place}: other fields"));
            }
            a.iter().find_map(|(key, value)| difference(value, &b[key], &format!("{place}.{key}")))
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return Some(format!("{place}: {} elements differ from {}", a.len(), b.len()));
            }
            a.iter().zip(b).enumerate().find_map(|(index, (a, b))| difference(a, b, &format!("{place}[{index}]")))
        }
        (Value::String(a), Value::String(b)) if a != b => match (Hex::parse(a), Hex::parse(b)) {
            (Some(a), Some(b)) if (a - b).abs() <= 1e-9 * a.abs() || (a - b).abs() <= 1e-14 => None,
            _ => differs(),
        },
        (Value::Number(a), Value::Number(b)) if a != b && place.contains(".sums.values") => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) if (a - b).abs() <= 2 => None,
            _ => differs(),
        },
        _ if old != new => differs(),
        _ => None,
    }
}

/// The committed files are what the reference makes; with `OLS_BLESS=1` they are made so.
#[test]
fn vectors_are_current() {
    let files = cases::files();
    let mut stale = vec![];
    for (name, file) in &files {
        let (old, new) = (read(name), text_of(file));
        if old == new {
            continue;
        }
        let generated: Value = serde_json::from_str(&new).expect("what was just written can be read");
        let found = match serde_json::from_str::<Value>(&old) {
            Ok(committed) => difference(&committed, &generated, name),
            Err(error) => Some(format!("{name}: {error}")),
        };
        let Some(found) = found else { continue };
        if blessing() {
            fs::write(path_of(name), new).expect("the vectors can be written");
        } else {
            stale.push(found);
        }
    }
    let mut names: Vec<String> = fs::read_dir(root().join("tests/vectors"))
        .expect("tests/vectors exists")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut expected: Vec<String> = files.iter().map(|(name, _)| format!("{name}.json")).collect();
    expected.sort();
    assert!(stale.is_empty(), "run OLS_BLESS=1 cargo test --test conformance and look at what changes:\n{}", stale.join("\n"));
    assert_eq!(names, expected, "tests/vectors has files that nobody makes");

    // The C data is made from the committed files, so that it is equal to them on every platform.
    let committed: Vec<(&str, File)> = files.iter().map(|(name, _)| (*name, parse(name))).collect();
    let (path, new) = (root().join("tests/c/vectors.inc"), c_include::render(&committed));
    if fs::read_to_string(&path).unwrap_or_default() != new {
        assert!(blessing(), "tests/c/vectors.inc is not what tests/vectors say; run OLS_BLESS=1 cargo test --test conformance");
        fs::write(path, new).expect("the C data can be written");
    }
}

/// A number means the same in a file and in memory.
#[test]
fn hexadecimal_numbers_survive() {
    for (text, value) in
        [("0x1.8p+1", 3.0), ("-0x1p-1074", -5e-324), ("0x0p+0", 0.0), ("0x1.fffffffffffffp+1023", f64::MAX), ("inf", f64::INFINITY)]
    {
        assert_eq!(Hex::parse(text), Some(value));
    }
    for value in [1.0, -0.1, 1e300, 1e-300, f64::MIN_POSITIVE, 5e-324, 1e-310, -0.0, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(Hex::parse(&Hex(value).to_string()).map(f64::to_bits), Some(value.to_bits()), "{value:e}");
    }
    assert!(Hex::parse("nan").is_some_and(f64::is_nan) && Hex::parse("1.5").is_none());
}

/// The formula of the inputs is the one that the comment states.
#[test]
fn inputs_are_what_the_comment_says() {
    assert_eq!(support::model::splitmix64(0, 0), 0xe220_a839_7b1d_cdaf);
    assert_eq!(support::model::splitmix64(7, 3), 0x953a_eb70_673e_29cb);
    for (name, file) in cases::files() {
        for case in &file.cases {
            for batch in &case.batches {
                let logits = support::runner::Tensors::new(batch).logits;
                for (found, value) in logits.values(&batch.logits.view).into_iter().zip(batch.logits.values()) {
                    assert!(
                        found == value || (found.is_nan() && value.is_nan()),
                        "{name}/{}: {value:e} is not exact in the dtype",
                        case.name
                    );
                }
            }
        }
    }
}

fn run_all(name: &str) {
    let file = parse(name);
    let failures: Vec<String> =
        file.cases.iter().filter_map(|case| runner::run(case).err().map(|error| format!("{name}/{}: {error}", case.name))).collect();
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), file.cases.len(), failures.join("\n"));
}

macro_rules! run_files {
    ($($name:ident),+) => { $(
        #[test]
        fn $name() {
            run_all(stringify!($name));
        }
    )+ };
}
run_files!(sizes, options, weights, targets, special, layouts, epochs, errors);
