"""Runs memcheck and racecheck of compute-sanitizer over a small program (sanitized.py) that launches every kernel
through the driver API: first the device's default kernels, then those for all devices."""

import pathlib
import re
import shutil
import sys
import time

from . import processes

PROGRAM = pathlib.Path(__file__).with_name("sanitized.py")
CLEAN = {
    "memcheck": re.compile(r"^=+ ERROR SUMMARY: 0 errors", re.M),
    "racecheck": re.compile(r"^=+ RACECHECK SUMMARY: 0 hazards displayed \(0 errors, 0 warnings\)", re.M),
}


def find():
    found = shutil.which("compute-sanitizer")
    candidates = [found] if found else []
    candidates += sorted(str(path) for path in pathlib.Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return candidates[0] if candidates else None


def run(arguments):
    tool, failures, results = find(), [], {}
    end = time.monotonic() + arguments.seconds
    # Name, and the command prefix.
    runs = [("program", [])]
    if tool:
        runs += [(name, [tool, "--tool", name, "--error-exitcode", "9"]) for name in CLEAN]
    else:
        failures.append("there is no compute-sanitizer here")
    for number, (name, prefix) in enumerate(runs):
        # A run that finishes early leaves its time to the others.
        limit = max(end - time.monotonic(), 5) / (len(runs) - number) * (1 if number == len(runs) - 1 else 1.3)
        quick = ["--quick"] * (name == "racecheck" or arguments.quick)
        status, text = processes.run([*prefix, sys.executable, "-B", str(PROGRAM), arguments.library, *quick], limit)
        text = text.strip()
        results[name] = [line for line in text.splitlines() if "SUMMARY" in line or "through the driver" in line]
        print(f"{name}: status {status}; {'; '.join(results[name])}", flush=True)
        if status is None:
            failures.append(f"{name}: no end within {limit:.0f} s; {text[-500:]}")
        elif status != 0:
            failures.append(f"{name}: status {status}: {text[-1500:]}")
        elif prefix and not CLEAN[name].search(text):
            failures.append(f"{name}: its summary is not clean: {text[-1500:]}")
        arguments.save({"ok": False, "results": results, "failures": failures})
    return {"ok": not failures, "results": results, "failures": failures}
