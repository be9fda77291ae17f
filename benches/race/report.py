"""Tables, JSON and the plot."""

import json
import os
import platform
import time

import numpy
import python
import record
import torch

TITLES = {
    "memcpy": "copy", "libols": "libols", "eager": "eager module", "rewrite": "best rewrite", "compiled": "rewrite, compiled",
    "ce": "cross entropy", "ce_smooth": "CE, smoothed", "ce_prob": "CE, soft targets",
}  # fmt: skip
# For one thread and f32: floor and goal of libols against the eager module, the compiled rewrite, plain cross entropy (times faster), and the
# copy (at most so many times its time).
BARS = {
    "128x10": ((80, 150), (40, 75), (16, 30), None),
    "256x100": ((26, 40), (14, 20), (4, 6), (9, 5)),
    "256x1000": ((35, 50), (8.5, 12), (2.7, 4), (5, 3.5)),
    "4096x1000": ((13, 25), (4, 7), (1.7, 3), (3.8, 2.2)),
    "1024x21841": ((12, 20), (4, 7), (4, 7), (4.5, 2.5)),
}


def header(version, commit, nothing, arguments, options):
    result = {
        "machine": record.machine(),
        "versions": {"libols": version, "commit": commit, "torch": torch.__version__, "numpy": numpy.__version__, "python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"), "arguments": arguments, "rounds": options.rounds, "budget_ms": options.budget,
        "isa": os.environ.get("OLS_ISA", ""), "ctypes_call_ns": nothing, "cases": [], "next_epoch": [],
    }  # fmt: skip
    machine = result["machine"]
    print(f"{machine['cpu']} ({machine['simd']}), {machine['threads']} threads, load {machine['load_before']:.2f} before")
    print(f"libols {version} ({commit}), torch {torch.__version__}; {options.rounds} rounds of {options.budget:g} ms")
    print(f"a call through ctypes that does nothing: {nothing:.0f} ns, which is in the times of libols and of the copy")
    print("microseconds: median (minimum); times libols: the median over rounds")
    return result


def microseconds(entry):
    return f"{entry['median_ns'] / 1e3:,.{3 if entry['median_ns'] < 1e4 else 0}f}"


def show(case):
    print(f"\n{case['shape']} {case['dtype']}, {case['threads']} thread{'s' * (case['threads'] > 1)}; others used {case['others_used']:.2f} processors")
    for name, entry in case["contestants"].items():
        if "not_run" in entry:
            print(f"  {TITLES[name]:<18} not run: {entry['not_run']}")
            continue
        line = f"  {TITLES[name]:<18} {microseconds(entry):>12} ({entry['min_ns'] / 1e3:,.2f})"
        if name in case["over_libols"]:
            line = f"{line:<50} {case['over_libols'][name]:8.2f} x libols"
        elif name == "libols":
            line = f"{line:<50} {case['libols_over_memcpy']:8.2f} x the copy"
        print(line, flush=True)


def show_epoch(case):
    entry = case["contestants"]
    print(f"\nnext_epoch, K = {case['classes']}, {case['threads']} threads: {microseconds(entry['libols'])} us, "
          f"copy of S {microseconds(entry['memcpy'])} us: {case['libols_over_memcpy']:.2f} x", flush=True)  # fmt: skip


def bars(result):
    """Lines of the table of bars: what was asked for, what was found."""
    lines = []
    for case in result["cases"]:
        if case["dtype"] != "f32" or case["threads"] != 1 or case["shape"] not in BARS:
            continue
        cells = []
        for name, bar in zip(("eager", "compiled", "ce", None), BARS[case["shape"]]):
            value = case["over_libols"].get(name) if name else case["libols_over_memcpy"]
            if bar is None or value is None:
                cells.append("" if bar is None else "not run")
                continue
            reached = [value >= limit if name else value <= limit for limit in bar]
            verdict = "goal" if reached[1] else "floor" if reached[0] else "**missed**"
            cells.append(f"{value:.1f} ({verdict}; {bar[0]:g} / {bar[1]:g})")
        lines.append(f"| {case['shape']} | {' | '.join(cells)} |")
    return lines


def markdown(result):
    machine, versions = result["machine"], result["versions"]
    out = [
        f"Measured on {result['date']} by `benches/race/run {' '.join(result['arguments'])}` at {versions['commit']}: {machine['cpu']} ({machine['simd']}), "
        f"{machine['threads']} threads, PyTorch {versions['torch']}, Python {versions['python']}. Others used up to "
        f"{max(map(record.others_used, result['cases'])):.2f} processors meanwhile. libols and the copy carry a ctypes call, "
        f"{result['ctypes_call_ns']:.0f} ns when it does nothing.", "",
    ]  # fmt: skip
    for threads in sorted({case["threads"] for case in result["cases"]}):
        cases = [case for case in result["cases"] if case["threads"] == threads]
        names = [name for name in TITLES if name not in ("memcpy", "libols")]
        titles = [TITLES[name] for name in names] + ["libols / copy"]
        out += [f"Times as long as libols (last column: libols over the copy); {threads} thread{'s' * (threads > 1)}:", ""]
        out += [f"| shape | {' | '.join(titles)} |", "|---|" + "--:|" * len(titles)]
        for case in cases:
            entries = [case["contestants"].get(name, {"not_run": ""}) for name in names]
            cells = ["–" if "not_run" in e else f"{case['over_libols'][n]:.1f}" for n, e in zip(names, entries)]
            out.append(f"| {case['shape']} {case['dtype']} | {' | '.join([*cells, format(case['libols_over_memcpy'], '.2f')])} |")
        out.append("")
    if lines := bars(result):
        head = "| shape | eager module | rewrite, compiled | cross entropy | at most x copy |"
        out += ["The bars that the project set itself, on another machine and before there were kernels (one thread, f32): found (reached; floor / goal).", "", head, "|---|---|---|---|---|", *lines, ""]
    if from_python := [case["python"] for case in result["cases"] if "python" in case]:
        out += python.markdown(from_python)
    if result["next_epoch"]:
        out += ["`next_epoch` with all classes measured:", "", "| K | threads | next_epoch / copy of S |", "|--:|--:|--:|"]
        for case in result["next_epoch"]:
            out.append(f"| {case['classes']} | {case['threads']} | {case['libols_over_memcpy']:.2f} |")
    return "\n".join([*out, "", "![Nanoseconds per logit of each contestant and of the copy, over the shapes](benchmarks.png)"])


def plot(result, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    cases = [case for case in result["cases"] if case["threads"] == 1 and case["shape"].count("x") == 1]
    dtypes = list(dict.fromkeys(case["dtype"] for case in cases))
    if not dtypes:
        return
    figure, axes = plt.subplots(1, len(dtypes), figsize=(5.5 * len(dtypes) + 2, 5), sharey=True, squeeze=False, layout="constrained")
    for axis, dtype in zip(axes[0], dtypes):
        chosen = [case for case in cases if case["dtype"] == dtype]
        sizes = [numpy.prod(list(map(int, case["shape"].split("x")))) for case in chosen]
        for name, title in TITLES.items():
            values = [case["contestants"].get(name, {}).get("median_ns", numpy.nan) / size for case, size in zip(chosen, sizes)]
            style = {"memcpy": {"color": "black", "ls": "--"}, "libols": {"color": "crimson", "lw": 3}}.get(name, {"lw": 1.2})
            axis.plot(range(len(chosen)), values, marker="o", ms=4, label="copy of the logits (the limit)" if name == "memcpy" else title, **style)
        axis.set(yscale="log", title=f"{dtype}, one thread", xlabel="samples x classes", xticks=range(len(chosen)))
        axis.set_xticklabels([case["shape"] for case in chosen], rotation=20)
        axis.grid(True, which="major", alpha=0.3)
    axes[0][0].set_ylabel("nanoseconds per logit: loss and gradient")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)


def finish(result, work, write_docs):
    result["machine"]["load_after"] = os.getloadavg()[0]
    for line in ["", "Bars (one thread, f32): eager module | compiled | cross entropy | at most x copy", *bars(result)]:
        print(line)
    worst = max(map(record.others_used, result["cases"]), default=0)
    if worst > 0.2:
        print(f"\nothers used up to {worst:.2f} processors meanwhile: not a calm machine. Read its ratios with care and its times not at all")
    path = os.path.join(work, "cpu.json")
    with open(path, "w") as file:
        json.dump(result, file, indent=1)
    print(f"\n{path}")
    plot(result, os.path.join(work, "cpu.png"))
    if write_docs:
        record.write_section("race", markdown(result))
        plot(result, "docs/benchmarks.png")
        print("docs/benchmarks.md docs/benchmarks.png")
