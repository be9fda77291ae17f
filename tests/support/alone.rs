//! A test in a process of its own, for what belongs to the whole process: limits, the environment.

/// Runs an ignored test of the calling file: whether it passed, and what it said.
pub fn run_alone(test: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", test, "--ignored", "--test-threads=1"]).envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("1 passed") || said.contains("1 failed"), "{test} was not run: {said}");
    (child.status.success(), said)
}
