//! What the environment variables of the library say, each in a process of its own, as they are read once.

#[path = "support/alone.rs"]
mod alone;

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
    let create = |level: &str| alone::run_alone("a_criterion_is_created", &[("OLS_ISA", level)]);
    for level in ["portable", "avx2", "avx512", ""] {
        assert!(create(level).0, "{level}");
    }
    for level in ["AVX2", "sse2", " avx2"] {
        let (created, said) = create(level);
        let expected = format!("refused: the environment variable OLS_ISA = {level:?} is not portable, avx2 or avx512");
        assert!(!created && said.contains(&expected), "{said}");
    }
}
