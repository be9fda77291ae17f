"""What each language's wrapper adds to a call, as a table, in target/bench/languages.json and, where asked for, in docs/benchmarks.md. `run` builds the
programs and starts it.

A language joins with a line in `languages` below and a program that prints, for each way to call, five fields parted by tabs:

    NAME BARE WRAPPED ADDED BYTES

nanoseconds per call of the bare C call, of the wrapper's, what the wrapper adds (compared in pairs, hence not always the difference of the two before it),
and bytes that a call allocates in its language's own heap, or -. Each program says how it measures.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "race"))
import record

HEADS = ("language", "bare C, ns", "wrapped, ns", "added, ns", "goal, ns", "goal met", "bytes allocated")


def languages(work, target, python):
    """Name (that of a line up to its comma), goal in nanoseconds (none for Python, whose calls are bound by its interpreter), command, environment."""
    tree = f"{work}/prefix/lib"
    loaded = {"OLS_LIBRARY": f"{tree}/libols.so"}
    yield "C++", 50, ["bindings/cpp/bench/run"], {}
    yield "Go", 200, [f"{work}/go"], {"LD_LIBRARY_PATH": tree}
    julia = ["julia", "--startup-file=no", "--project=bindings/julia", "bindings/julia/benchmark/overhead.jl"]
    yield "Julia", 200, julia, {**loaded, "JULIA_DEPOT_PATH": f"{target}/julia/depot", "JULIA_LOAD_PATH": None, "JULIA_PROJECT": None}
    python = [python, "benches/languages/overhead.py", f"{work}/bare.so"]
    yield "Python", None, python, {**loaded, "PYTHONPATH": "bindings/python", "PYTHONDONTWRITEBYTECODE": "1"}


def measured(name, goal, command, environment):
    whole = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    lines = subprocess.run(command, env=whole, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    if not lines:
        sys.exit(f"benches/languages: {name} printed nothing")
    for line in lines:
        fields = line.split("\t")
        if len(fields) != 5 or fields[0].split(",")[0] != name:
            sys.exit(f"benches/languages: what is this of {name}: {line}")
        bare, wrapped, added = map(float, fields[1:4])
        yield {
            "name": fields[0],
            "bare_ns": bare,
            "wrapped_ns": wrapped,
            "added_ns": added,
            "goal_ns": goal,
            "bytes": None if fields[4] == "-" else int(fields[4]),
        }


def children_seconds():
    """What the programs had of the processors, and what `run` has built before it became this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cells(row):
    """As the table shows them. What C++ adds may be less than the noise, and is then shown as less than 0."""
    goal, allocated = row["goal_ns"], row["bytes"]
    met = "" if goal is None else "yes" if row["added_ns"] <= goal else "**no**"
    times = [f"{row[key]:,.0f}" for key in ("bare_ns", "wrapped_ns", "added_ns")]
    return [row["name"], *times, "" if goal is None else str(goal), met, "not counted" if allocated is None else str(allocated)]


def markdown(result):
    machine = result["machine"]
    return "\n".join([
        f"Measured on {result['date']} by `{' '.join(['benches/languages/run', *result['arguments']])}` at {result['commit']}: "
        f"{machine['cpu']} ({machine['simd']}), {machine['threads']} thread{'s' * (machine['threads'] > 1)}. "
        f"Others used {result['others_used']:.2f} processors meanwhile.", "",
        f"| {' | '.join(HEADS)} |", "|---|--:|--:|--:|--:|---|--:|", *(f"| {' | '.join(cells(row))} |" for row in result["rows"]),
    ])  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        prog="benches/languages/run", description="What each language adds to a call over the bare C call, at 128x10 in f32."
    )
    parser.add_argument("--write-docs", action="store_true", help=f"puts the table into {record.PAGE}")
    for name in ("--work", "--target", "--python"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    arguments = ["--write-docs"] * options.write_docs
    result = {"date": time.strftime("%Y-%m-%d"), "commit": record.commit(), "arguments": arguments, "machine": record.machine(), "rows": []}
    begin, busy = time.monotonic(), record.busy_seconds() - children_seconds()
    print(("{:<16}" + " {:>12}" * 5 + " {:>16}").format(*HEADS))
    for language in languages(options.work, options.target, options.python):
        for row in measured(*language):
            result["rows"].append(row)
            print(("{:<16}" + " {:>12}" * 5 + " {:>16}").format(*(text.strip("*") for text in cells(row))), flush=True)
    others = record.busy_seconds() - children_seconds() - busy
    result["others_used"] = max(0.0, others / (time.monotonic() - begin))
    print(f"others used {result['others_used']:.2f} processors meanwhile" + ": not a calm machine" * (result["others_used"] > 0.2))
    path = Path(options.target, "bench", "languages.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)
    if options.write_docs:
        record.write_section("languages", markdown(result))
        print(record.PAGE)


main()
