"""One table of everything, and the bars beside the measurements."""

# Device microseconds in a graph on an H200; "empty" and "copy" are measured in the same run.
BARS = {
    "128x10 f32": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5), "128x10 bf16": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5),
    "256x100 f32": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5), "256x100 bf16": ("empty + 1.5", lambda it: it["empty"]["graph_us"] + 1.5),
    "256x1000 f32": ("4", lambda it: 4.0), "256x1000 bf16": ("4", lambda it: 4.0),
    "4096x1000 f32": ("15", lambda it: 15.0), "4096x1000 bf16": ("11", lambda it: 11.0),
    "1024x21841 f32": ("85 % of copy", lambda it: of_copy(it, 0.85)), "1024x21841 bf16": ("85 % of copy", lambda it: of_copy(it, 0.85)),
    "8192x32000 bf16": ("90 % of copy", lambda it: of_copy(it, 0.90)),
}  # fmt: skip
COLUMNS = ["libols", "copy", "empty", "ce", "ce smoothed", "rewrite", "compiled", "eager", "liger ce"]


def rate_of_copy(it):
    """Bytes per microsecond of the copy, which reads and writes the logits."""
    return it["copied_mb"] * 1e6 / it["copy"]["graph_us"]


def of_copy(it, share):
    """The time in which all counted bytes move at this share of the copy's rate."""
    return it["counted_mb"] * 1e6 / (rate_of_copy(it) * share)


def logits_mb(key):
    shape, dtype = key.split()
    elements = 1
    for size in shape.split("x"):
        elements *= int(size)
    return elements * (2 if dtype == "bf16" else 4) / 1e6


def render(results):
    lines = ["", "libols on CUDA: " + ", ".join(f"{key} {value}" for key, value in results.get("environment", {}).items()
                                                if key in ("libols", "commit", "device", "driver", "torch"))]  # fmt: skip
    for name, part in results.items():
        if isinstance(part, dict):
            count = f", {part['cases']} cases" if "cases" in part else ""
            lines.append(f"{name:12} {'ok' if part['ok'] else 'FAILED'} ({part['seconds']} s{count})")
            lines += [f"    {failure.splitlines()[0][:200]}" for failure in part.get("failures", [])[:12]]
    shapes = results.get("race", {}).get("shapes", {})
    if not shapes:
        return "\n".join(lines)
    lines += ["", "microseconds of the device per step in a replayed graph; in brackets eagerly, with the host", ""]
    lines.append(f"{'shape':24}" + "".join(f"{name:>20}" for name in COLUMNS) + f"{'bar':>22}")
    for key, it in shapes.items():
        it["copied_mb"] = 2 * logits_mb(key)
        row = f"{key:24}"
        for name in COLUMNS:
            cell = it.get(name, {})
            graph, eager = cell.get("graph_us"), cell.get("eager_us")
            text = "-" if not cell else "error" if "error" in cell else f"{graph if graph is not None else '-'} [{eager if eager is not None else '-'}]"
            row += f"{text:>20}"
        if key in BARS and "graph_us" in it.get("libols", {}):
            text, bar = BARS[key]
            try:
                limit = bar(it)
                met = it["libols"]["graph_us"] <= limit
                row += f"{'met' if met else 'MISSED'}: {limit:.1f} ({text})".rjust(22)
            except KeyError:
                row += f"{'not measured':>22}"
        lines.append(row)
    lines.append("")
    for key, it in shapes.items():
        ours = it.get("libols", {})
        if "host_us" in ours and "graph_us" in ours:
            rate = it["counted_mb"] / ours["graph_us"]
            lines.append(f"{key:24} {rate:6.2f} TB/s over {it['counted_mb']:.1f} MB counted; {ours['host_us']} us of the host per C call")
    return "\n".join(lines)
