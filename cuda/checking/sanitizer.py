"""compute-sanitizer over a small program (sanitized.py) that launches every kernel through the driver alone: memcheck and racecheck, and memcheck for
the variants that are off by default."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

PROGRAM = pathlib.Path(__file__).with_name("sanitized.py")


def find():
    found = shutil.which("compute-sanitizer")
    candidates = [found] if found else []
    candidates += sorted(str(path) for path in pathlib.Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return candidates[0] if candidates else None


def run(arguments):
    tool, failures, results = find(), [], {}
    end = time.monotonic() + arguments.seconds
    # Name, command before the program, its options, and the variants of the kernels.
    runs = [("plain", [], [], "plain")]
    if tool:
        memcheck, racecheck = ([tool, "--tool", name, "--error-exitcode", "9"] for name in ("memcheck", "racecheck"))
        runs += [("memcheck", memcheck, [], "plain"), ("racecheck", racecheck, ["--quick"], "plain"),
                 ("memcheck cluster", memcheck, ["--quick"], "cluster"), ("memcheck bulk", memcheck, ["--quick"], "bulk")]  # fmt: skip
    else:
        failures.append("there is no compute-sanitizer here")
    for number, (name, prefix, options, path) in enumerate(runs):
        limit = max(end - time.monotonic(), 5) / (len(runs) - number) * (1 if number == len(runs) - 1 else 1.5)
        command = [*prefix, sys.executable, "-B", str(PROGRAM), arguments.library, *options]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=limit, env={**os.environ, "OLS_CUDA_PATH": path})
        except subprocess.TimeoutExpired:
            failures.append(f"{name}: no end within {limit:.0f} s")
            continue
        text = (answer.stdout + answer.stderr).strip()
        results[name] = text.splitlines()[-1:] or [""]
        print(f"{name}: status {answer.returncode}; {results[name][0]}", flush=True)
        if answer.returncode != 0:
            failures.append(f"{name}: status {answer.returncode}: {text[-1500:]}")
        arguments.save({"ok": False, "results": results, "failures": failures})
    return {"ok": not failures, "results": results, "failures": failures}
