"""What belongs to every measurement: on which machine, how calm it was, and its place in docs/benchmarks.md. Nothing but Python's own library is needed."""

import os
import platform
import re
import subprocess

PAGE = "docs/benchmarks.md"


def processor():
    with open("/proc/cpuinfo") as file:
        found = dict(re.findall(r"^([^\t]+)\t*: (.*)$", file.read().split("\n\n")[0], re.M))
    simd = [name for name in ("avx512f", "avx512_bf16", "avx2", "fma", "asimd") if name in found.get("flags", found.get("Features", "")).split()]
    name = found.get("model name", platform.machine()).strip()
    return {"cpu": f"{name}, family {found.get('cpu family', '?')} model {found.get('model', '?')}", "simd": " ".join(simd)}


def machine():
    return {**processor(), "threads": len(os.sched_getaffinity(0)), "system": platform.system(), "load_before": os.getloadavg()[0]}


def commit():
    return subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()


def busy_seconds():
    """Seconds that the machine's processors have worked for anybody since it started."""
    with open("/proc/stat") as stat:
        fields = list(map(int, stat.readline().split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def others_used(case):
    """Processors that others used while a case was timed, its section of Python included."""
    return max(case["others_used"], case.get("python", case)["others_used"])


def write_section(name, markdown):
    """Puts it between the page's marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    with open(PAGE) as file:
        text = file.read()
    before, after = text[: text.index(begin)], text[text.index(end) :]
    with open(PAGE, "w") as file:
        file.write(f"{before}{begin}\n{markdown}\n{after}")
