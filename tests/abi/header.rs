//! Makes `include/ols.h` from `src/capi`: cbindgen writes what the code says, and this adds the front page and the helpers for tensors.

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};

use super::{root, text};

/// The files of the ABI, in the order of the header, with the headings of their functions.
const FILES: [(&str, &str); 11] = [
    ("versions", "Versions"),
    ("status", "Errors"),
    ("tensor", ""),
    ("options", "Options"),
    ("batch", "Batches"),
    ("criterion", "Creating and destroying"),
    ("passes", "Loss and gradient"),
    ("statistics", "Statistics and epochs"),
    ("soft_labels", "Soft labels"),
    ("settings", "Mode, alpha and epoch number"),
    ("state", "Saving and loading"),
];

/// Enums that no signature names, because numbers cross as `int32_t`.
const ENUMS: [&str; 6] = ["ols_dtype_t", "ols_initial_t", "ols_empty_class_t", "ols_reduction_t", "ols_mode_t", "ols_preset_t"];

/// The text of `include/ols.h`.
pub fn generate() -> String {
    let mut config = Config {
        language: Language::C,
        cpp_compat: true,
        include_guard: Some("OLS_H".into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        after_includes: Some(version_macros()),
        style: Style::Both,
        documentation_style: DocumentationStyle::Doxy,
        usize_is_size_t: true,
        line_length: 100,
        tab_width: 4,
        ..Config::default()
    };
    config.export.include = ENUMS.map(String::from).to_vec();
    let mut builder = Builder::new().with_config(config);
    for (file, _) in FILES {
        builder = builder.with_src(root(&format!("src/capi/{file}.rs")));
    }
    let mut generated = Vec::new();
    builder.generate().expect("cbindgen reads src/capi").write(&mut generated);
    let mut header = for_c_readers(&String::from_utf8(generated).unwrap());
    for (file, heading) in FILES.iter().filter(|(_, heading)| !heading.is_empty()) {
        insert_heading(&mut header, &text(&format!("src/capi/{file}.rs")), heading);
    }
    // The helpers need the types and belong into the guard.
    let functions = header.find("#ifdef __cplusplus\nextern \"C\"").expect("the functions follow the types");
    header.insert_str(functions, &format!("{}\n", text("src/capi/header/tensors.h")));
    format!("{}\n{header}", front_page())
}

/// Turns what Rust's documentation and cbindgen's types need into what a C programmer reads.
fn for_c_readers(header: &str) -> String {
    let mut out = String::new();
    let mut lines = header.lines().peekable();
    while let Some(line) = lines.next() {
        match line.trim() {
            "* # Safety" => {
                let first = lines.next().unwrap_or_default().trim_start().trim_start_matches("* ");
                out += &format!(" * Requirements: {first}\n");
            }
            "* ```text" | "* ```" => {}
            _ => {
                // Every struct has its typedef, so the keyword is noise.
                let line = if line.starts_with("typedef struct") { line.to_owned() } else { line.replace("struct ols_", "ols_") };
                out += &line;
                out.push('\n');
            }
        }
    }
    one_line_comments(&out)
}

/// Writes a comment of one line on one line.
fn one_line_comments(header: &str) -> String {
    let lines: Vec<_> = header.lines().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < lines.len() {
        let indent = &lines[at][..lines[at].len() - lines[at].trim_start().len()];
        match lines.get(at..at + 3) {
            Some([open, text, close]) if open.trim() == "/**" && close.trim() == "*/" => {
                out += &format!("{indent}/** {} */\n", text.trim().trim_start_matches("* "));
                at += 3;
            }
            _ => {
                out += lines[at];
                out.push('\n');
                at += 1;
            }
        }
    }
    out
}

/// Puts a heading before the first function of a file.
fn insert_heading(header: &mut String, source: &str, heading: &str) {
    let name = source.split("extern \"C\" fn ").nth(1).and_then(|rest| rest.split('(').next()).expect("a file has functions");
    let function = header.find(&format!(" *{name}(")).or_else(|| header.find(&format!(" {name}("))).expect("the header has the function");
    let comment = header[..function].rfind("/**").expect("a function has a comment");
    header.insert_str(comment, &format!("/* ==== {heading} ==== */\n\n"));
}

/// From Cargo's version, so that there is one place to change it.
fn version_macros() -> String {
    let number = |part: &str| part.parse::<u32>().unwrap();
    let (major, minor, patch) =
        (number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR")), number(env!("CARGO_PKG_VERSION_PATCH")));
    format!(
        "\n/** The version of this header; see `ols_version`. */\n#define OLS_VERSION \"{}\"\n#define OLS_VERSION_MAJOR {major}\n\
         #define OLS_VERSION_MINOR {minor}\n#define OLS_VERSION_PATCH {patch}\n\
         /** The version as one number, for comparisons: `major*1000000 + minor*1000 + patch`. */\n#define OLS_VERSION_NUMBER {}",
        env!("CARGO_PKG_VERSION"),
        major * 1_000_000 + minor * 1_000 + patch
    )
}

fn front_page() -> String {
    let example: String = text("examples/c/first.c").lines().map(|line| format!("    {line}\n")).collect();
    let libraries = native_static_libraries();
    let page = text("src/capi/header/front.txt")
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@EXAMPLE@", example.trim_end())
        .replace("@NATIVE_LIBS@", &libraries);
    let body: String = page.lines().map(|line| format!(" * {line}").trim_end().to_owned() + "\n").collect();
    let warning = " *\n * Generated from src/capi by: OLS_BLESS=1 cargo test --test header. Do not edit.\n";
    format!("/*\n{body}{warning} */")
}

/// What a program that links `libols.a` links besides, as `rustc --print native-static-libs` says.
pub fn native_static_libraries() -> String {
    let template = text("packaging/ols.pc.in");
    template.lines().find_map(|line| line.strip_prefix("Libs.private: ")).expect("the template has Libs.private").to_owned()
}
