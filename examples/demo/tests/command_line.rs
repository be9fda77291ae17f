//! Tests of the demo's command line.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn demo(words: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ols-demo"));
    command.args(words).arg("--out").arg(out);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_quick_run_leaves_a_table_and_pictures_and_is_not_repeated() {
    let out = tempfile::tempdir().unwrap();
    // From another folder, because the digits are part of the program.
    let output = demo(&["--quick"], out.path()).current_dir(std::env::temp_dir()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in ["cross entropy", "label smoothing", "online label smoothing", "clean labels", "40 % wrong labels", "ECE"] {
        assert!(table.contains(words), "no {words} in\n{table}");
    }
    for name in ["overview", "curves", "soft-labels", "confused-pairs", "reliability"] {
        let picture = fs::read(out.path().join(format!("{name}.png"))).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{name}");
    }
    assert!(fs::read_to_string(out.path().join("summary.md")).unwrap().contains("| online label smoothing"));
    // A heading, and 2 seeds x 2 kinds of labels x 3 losses x 3 epochs.
    assert_eq!(fs::read_to_string(out.path().join("history.csv")).unwrap().lines().count(), 1 + 36);

    let again = demo(&["--quick", "--resume"], out.path()).current_dir(std::env::temp_dir()).output().unwrap();
    assert!(again.status.success(), "{}", text(&again));
    assert!(!text(&again).contains("run  1 of"), "a finished run was repeated:\n{}", text(&again));
    assert_eq!(String::from_utf8_lossy(&again.stdout), table);

    let other = demo(&["--quick", "--resume", "--noise", "0.2"], out.path()).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other).contains("noise is 0.2 now, but was 0.4"), "{}", text(&other));
}

#[test]
fn bad_arguments_end_with_a_sentence_and_a_code() {
    let out = tempfile::tempdir().unwrap();
    for (words, code, sentence) in [
        (&["--epochs", "0"][..], 2, "--epochs"),
        (&["--noise", "2"], 2, "a number from 0 to 1 is needed"),
        (&["--data", "/no/such/folder"], 1, "/no/such/folder: there is no such folder"),
    ] {
        let output = demo(words, out.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(sentence), "{}", text(&output));
        assert!(!text(&output).contains("panicked"), "{}", text(&output));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train-images-idx3-ubyte"), [0, 0, 8, 3, 0, 0, 0, 9]).unwrap();
    let output = demo(&["--data", folder.path().to_str().unwrap()], out.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("train-images-idx3-ubyte: cut off"), "{}", text(&output));
}

#[cfg(unix)]
#[test]
fn an_interrupted_experiment_ends_with_the_numbers_of_one_that_was_not() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let words = ["--seeds", "1", "--epochs", "40", "--train", "300", "--threads", "1"];
    let (whole, halved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(demo(&words, whole.path()).output().unwrap().status.success());

    let child = demo(&words, halved.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let first = halved.path().join("runs/clean-cross-entropy-seed0/result.json");
    let begin = Instant::now();
    while !first.exists() && begin.elapsed() < Duration::from_secs(600) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("--threads 1 --out") && text(&output).contains("--resume"), "{}", text(&output));
    assert!(!halved.path().join("summary.json").exists());

    let resumed = demo(&words, halved.path()).arg("--resume").output().unwrap();
    assert!(resumed.status.success(), "{}", text(&resumed));
    for name in ["summary.json", "history.csv", "summary.md", "overview.png"] {
        assert_eq!(fs::read(whole.path().join(name)).unwrap(), fs::read(halved.path().join(name)).unwrap(), "{name}");
    }
}
