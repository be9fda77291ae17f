"""Formats all results as one table, with targets ("bars") beside the measurements."""

# Targets for device time in a graph on an H200, in microseconds; "empty" and "copy" are measured in the same run.
BARS = {
    "128x10 f32": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5), "128x10 bf16": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5),
    "256x100 f32": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5), "256x100 bf16": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5),
    "256x1000 f32": ("4", lambda it: 4.0), "256x1000 bf16": ("4", lambda it: 4.0),
    "4096x1000 f32": ("15", lambda it: 15.0), "4096x1000 bf16": ("11", lambda it: 11.0),
    "1024x21841 f32": ("85 % of copy", lambda it: of_copy(it, 0.85)), "1024x21841 bf16": ("85 % of copy", lambda it: of_copy(it, 0.85)),
    "8192x32000 bf16": ("90 % of copy", lambda it: of_copy(it, 0.90)),
}  # fmt: skip
COLUMNS = ["libols", "plain", "copy", "empty", "ce", "ce_smooth", "rewrite", "compiled", "eager", "liger"]
# Target speedups of libols over these, by shape: for the eager module in eager time, for the others in graph time
# where both have one.
RATIOS = {
    "eager": {"128x10": 40, "256x100": 40, "256x1000": 40, "4096x1000": 15},
    "compiled": dict.fromkeys(("128x10", "256x100", "256x1000", "4096x1000", "1024x21841"), 5),
    "ce": dict.fromkeys(("128x10", "256x100", "256x1000", "4096x1000", "1024x21841"), 3),
    "liger": {},  # 1 for every shape
}


def rate_of_copy(it):
    """Bytes per microsecond of the copy, which reads and writes as many bytes as the logits have."""
    return it["copied_mb"] * 1e6 / it["copy"]["graph_us"]


def of_copy(it, share):
    """The time for all counted bytes at this fraction of the rate of the copy."""
    return it["counted_mb"] * 1e6 / (rate_of_copy(it) * share)


def logits_mb(key):
    shape, dtype = key.split()
    elements = 1
    for size in shape.split("x"):
        elements *= int(size)
    return elements * (2 if dtype == "bf16" else 4) / 1e6


def cell(it):
    if not it:
        return "-"
    if "absent" in it or "error" in it:
        return "absent" if "absent" in it else "error"
    graph, eager = it.get("graph_us", "-"), it.get("eager_us", "-")
    return f"{graph} [{eager}]"


def bar_of(key, it, device):
    if key not in BARS or "graph_us" not in it.get("libols", {}):
        return ""
    text, bar = BARS[key]
    try:
        limit = bar(it)
    except KeyError:
        return "not measured"
    if text.isdigit() and "H200" not in device:
        return f"{text} is an H200's"
    return f"{'met' if it['libols']['graph_us'] <= limit else 'MISSED'}: {limit:.1f} ({text})"


def ratios(key, it):
    """Formats speedups and their targets: `eager 45x (40)`."""
    ours, found = it.get("libols", {}), []
    for name, bars in RATIOS.items():
        other = it.get(name, {})
        clock = "graph_us" if name != "eager" and "graph_us" in ours and "graph_us" in other else "eager_us"
        if clock in ours and clock in other:
            wanted = 1 if name == "liger" else bars.get(key.split()[0])
            ratio = other[clock] / ours[clock]
            eagerly = f", eagerly {other['eager_us'] / ours['eager_us']:.1f}x" if clock == "graph_us" and "eager_us" in ours and "eager_us" in other else ""
            found.append(f"{name} {ratio:.1f}x" + (f" ({wanted}{'' if ratio >= wanted else ' MISSED'})" if wanted else "") + eagerly)
    return ", ".join(found)


def render(results):
    known = {**results.get("environment", {}), **results}
    lines = ["", "libols on CUDA: " + ", ".join(f"{key} {known[key]}" for key in ("libols", "date", "commit", "device", "torch") if key in known)]
    for name, part in results.items():
        if isinstance(part, dict):
            notes = "".join([f", {part['cases']} cases" if "cases" in part else "", *(f"; {part[it]}" for it in ("skipped", "left_out") if it in part)])
            lines.append(f"{name:12} {'ok' if part['ok'] else 'FAILED'} ({part['seconds']} s{notes})")
            lines += [f"    {(failure.splitlines() or [''])[0][:200]}" for failure in part.get("failures", [])[:12]]
    shapes = {key: dict(it) for key, it in results.get("race", {}).get("shapes", {}).items()}
    for key, it in results.get("paths", {}).get("shapes", {}).items():
        shapes.setdefault(key, {}).update(it)
    if not shapes:
        return "\n".join(lines)
    lines += ["", "microseconds of the device per step in a replayed graph; in brackets eagerly, with the host", ""]
    lines.append(f"{'shape':24}" + "".join(f"{name:>20}" for name in COLUMNS) + f"{'bar':>28}")
    for key, it in shapes.items():
        it["copied_mb"] = 2 * logits_mb(key)
        lines.append(f"{key:24}" + "".join(f"{cell(it.get(name)):>20}" for name in COLUMNS) + f"{bar_of(key, it, known.get('device', '')):>28}")
    lines.append("")
    for key, it in shapes.items():
        ours = it.get("libols", {})
        parts = [f"{it['counted_mb'] / ours['graph_us']:.2f} TB/s over {it['counted_mb']:.1f} MB counted"] if "graph_us" in ours else []
        parts += [f"{ours['host_us']} us of the host per C call"] if "host_us" in ours else []
        lines.append(f"{key:24} " + "; ".join(filter(None, [*parts, ratios(key, it)])))
    problems = {f"{key} {name}": found["error"] for key, it in shapes.items() for name, found in it.items() if isinstance(found, dict) and "error" in found}
    problems |= {f"{key} {name}": found["absent"] for key, it in shapes.items() for name, found in it.items() if isinstance(found, dict) and "absent" in found}
    lines += ["", "not measured:", *(f"    {name}: {text}" for name, text in problems.items())] if problems else []
    return "\n".join(lines)
