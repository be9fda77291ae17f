"""Checks that the results that a rehearsal left in a folder are complete."""

import json
import sys
from pathlib import Path


def load(name):
    return json.loads((Path(sys.argv[1]) / f"{name}.json").read_text())


def expect(good, what):
    if not good:
        sys.exit(f"rehearsal: {what}")


def measured(shapes, clock, names):
    for key, found in shapes.items():
        for name in names(found):
            expect(clock in found.get(name, {}), f"{key} {name}: {found.get(name)}")


results = load("all")
parts = {"environment", "correctness", "behaviour", "sanitizer", "race", "paths"}
expect(parts < set(results) and all(results[part]["ok"] for part in parts), f"parts {results.keys()}")
expect(results["correctness"]["cases"] > 50 and "left_out" not in results["correctness"], "correctness is not complete")
expect(len(results["behaviour"]["passed"]) == 8, results["behaviour"]["passed"])
expect(set(results["sanitizer"]["results"]) == {"program", "memcheck", "racecheck"}, results["sanitizer"])
for lines in results["sanitizer"]["results"].values():
    expect(all(f"{path}: {count} cases" in " ".join(lines) for path, count in (("default", 23), ("plain", 19))), lines)
race, paths = results["race"]["shapes"], results["paths"]["shapes"]
expect(len(race) == 6 and set(paths) == set(race) and results["paths"]["cases"] == 24, "shapes")
counting = {key for key, found in race.items() if "rewrite" in found}
expect(len(counting) == 4, counting)
measured(race, "graph_us", lambda found: ["libols", "copy", "empty", "ce", "ce_smooth", *["rewrite", "compiled"] * ("rewrite" in found)])
measured({key: race[key] for key in counting}, "eager_us", lambda _: ["eager"])
measured(paths, "graph_us", lambda found: ["plain"])
for found in race.values():
    expect("absent" in found["liger"] or "eager_us" in found["liger"], found["liger"])

faults = load("faults")
expect("ended with status" in faults["environment"]["failures"][0], faults["environment"])
expect("did not end within" in faults["behaviour"]["failures"][0], faults["behaviour"])
expect(faults["correctness"]["ok"], faults["correctness"])

cpu = load("cpu")
expect({name for name, part in cpu.items() if isinstance(part, dict) and part["ok"]} == {"environment", "correctness", "race"}, cpu.keys())
measured(cpu["race"]["shapes"], "eager_us", lambda found: ["libols", "copy", "ce", *["rewrite", "eager"] * ("rewrite" in found)])
print("rehearsal: ok,", ", ".join(f"{name} {part['seconds']} s" for name, part in results.items() if isinstance(part, dict)))
