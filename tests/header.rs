//! `include/ols.h` is what `src/capi` says, and reads as a manual.

mod abi;

use std::fs;

use abi::{header, root, text};

/// `OLS_BLESS=1 cargo test --test header` rewrites the header.
#[test]
fn header_is_current() {
    let generated = header::generate();
    let path = root("include/ols.h");
    if std::env::var_os("OLS_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if let Some((number, (old, new))) = committed.lines().zip(generated.lines()).enumerate().find(|(_, (old, new))| old != new) {
        panic!("include/ols.h:{}: stale\n  is     {old}\n  wanted {new}\nOLS_BLESS=1 cargo test --test header", number + 1);
    }
    assert!(committed == generated, "include/ols.h is stale: OLS_BLESS=1 cargo test --test header");
}

/// Each function, struct, field and constant has a comment.
#[test]
fn everything_is_documented() {
    let header = header::generate();
    let mut undocumented = Vec::new();
    let mut commented = false;
    let mut body = false;
    let lines: Vec<_> = header.lines().skip_while(|line| !line.contains("#define OLS_H")).skip(1).collect();
    for line in &lines {
        let code = line.trim();
        if code.starts_with("/**") || code.starts_with('*') {
            commented = true;
            continue;
        }
        let member = line.starts_with("    ") && !line.starts_with("     ") && !body;
        let declares = line.starts_with("typedef struct")
            || (line.starts_with("#define OLS_") && !line.starts_with("#define OLS_VERSION"))
            || (member && (code.ends_with(';') || code.starts_with("OLS_")))
            || (!line.starts_with(' ') && code.contains("ols_") && code.contains('('));
        if declares && !commented {
            undocumented.push(code);
        }
        body = line.starts_with("static inline") || (body && *line != "}");
        commented = commented && code.starts_with('#');
    }
    assert!(undocumented.is_empty(), "without a comment:\n{}", undocumented.join("\n"));
}

/// Each function that returns a status says who owns what, who may call it, and what its outputs hold on failure, in this order.
#[test]
fn functions_say_what_the_rules_ask_for() {
    let header = header::generate();
    for (at, _) in header.match_indices("\nols_status_t ols_") {
        let name = header[at + 14..].split('(').next().unwrap();
        let comment = &header[header[..at].rfind("/**").unwrap()..at];
        let flat = comment.replace("\n *", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        if flat.contains("all other respects as `ols_load`") || flat.contains("Ownership, threads, failure") {
            continue;
        }
        let place = |words: &str| flat.find(words).unwrap_or_else(|| panic!("{name} does not say {words:?}:\n{comment}"));
        assert!(place("Safe to call from any thread") < place("On failure"), "{name}: failure comes after threads");
        place("Requirements: ");
    }
    assert!(!header.contains("# Safety") && !header.contains("```"), "Rust's marks are for Rust's readers");
}

/// The header is read in terminals and side by side with a program.
#[test]
fn lines_fit_into_100_columns() {
    for (name, header) in [("include/ols.h", header::generate()), ("include/ols_dlpack.h", text("include/ols_dlpack.h"))] {
        for (number, line) in header.lines().enumerate() {
            assert!(line.chars().count() <= 100, "{name}:{} has {} columns: {line}", number + 1, line.chars().count());
        }
    }
}

/// One number is composed of three: rustls once shipped a header that composed it of two.
#[test]
fn version_number_is_composed_of_all_parts() {
    let header = header::generate();
    let value = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(&format!("#define {name} "))).unwrap_or_else(|| panic!("{name}"));
        line.trim_matches('"').to_owned()
    };
    let number = |name: &str| value(name).parse::<u64>().unwrap();
    let (major, minor, patch) = (number("OLS_VERSION_MAJOR"), number("OLS_VERSION_MINOR"), number("OLS_VERSION_PATCH"));
    assert_eq!(value("OLS_VERSION"), env!("CARGO_PKG_VERSION"));
    assert_eq!(format!("{major}.{minor}.{patch}"), env!("CARGO_PKG_VERSION"));
    let composed = number("OLS_VERSION_NUMBER");
    assert_eq!((composed / 1_000_000, composed / 1_000 % 1_000, composed % 1_000), (major, minor, patch));
    let abi = number("OLS_ABI_VERSION");
    assert_eq!(abi, major, "the ABI's version is the major version");
}

/// The README's C program is examples/c/first.c, which is compiled and run: each of its lines stands there, less the error handling.
#[test]
fn the_readme_shows_the_first_example() {
    let readme = text("README.md");
    let snippet = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the README has a C program");
    let example = text("examples/c/first.c");
    for line in snippet.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let code = line.split("//").next().unwrap_or(line).trim().trim_end_matches(';');
        assert!(example.contains(code), "{code:?} is not in examples/c/first.c");
    }
}
