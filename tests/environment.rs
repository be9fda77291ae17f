//! What the environment variables of the library say, each in a process of its own, as they are read once.

use ols::{Criterion, ErrorKind, Options};

#[test]
#[ignore = "run in a process of its own, by the test below"]
fn a_criterion_is_created() {
    let Err(error) = Criterion::new(&Options::new(3)) else { return };
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    panic!("refused: {error}");
}

#[test]
fn a_level_that_is_none_is_an_error() {
    let create = |level: &str| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let child = child.args(["--exact", "a_criterion_is_created", "--ignored"]).env("OLS_ISA", level).output().unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(said.contains("1 passed") || said.contains("1 failed"), "{said}");
        (child.status.success(), said)
    };
    for level in ["portable", "avx2", "avx512", ""] {
        assert!(create(level).0, "{level}");
    }
    for level in ["AVX2", "sse2", " avx2"] {
        let (created, said) = create(level);
        let expected = format!("refused: the environment variable OLS_ISA = {level:?} is not portable, avx2 or avx512");
        assert!(!created && said.contains(&expected), "{said}");
    }
}
