"""compute-sanitizer over a small program (sanitized.py) that launches every kernel through the driver alone: memcheck and racecheck."""

import pathlib
import shutil
import subprocess
import sys

PROGRAM = pathlib.Path(__file__).with_name("sanitized.py")


def find():
    found = shutil.which("compute-sanitizer")
    candidates = [found] if found else []
    candidates += sorted(str(path) for path in pathlib.Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return candidates[0] if candidates else None


def run(arguments):
    tool, failures, results = find(), [], {}
    limit = arguments.seconds / 3
    runs = [("plain", [])]
    if tool:
        runs += [(name, [tool, "--tool", name, "--error-exitcode", "9"]) for name in ("memcheck", "racecheck")]
    else:
        failures.append("there is no compute-sanitizer here")
    for name, prefix in runs:
        command = [*prefix, sys.executable, "-B", str(PROGRAM), arguments.library]
        if name == "racecheck":
            command.append("--quick")
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            failures.append(f"{name}: no end within {limit:.0f} s")
            continue
        text = (answer.stdout + answer.stderr).strip()
        results[name] = text.splitlines()[-1:] or [""]
        print(f"{name}: status {answer.returncode}; {results[name][0]}", flush=True)
        if answer.returncode != 0:
            failures.append(f"{name}: status {answer.returncode}: {text[-1500:]}")
    return {"ok": not failures, "results": results, "failures": failures}
