"""Records what the results apply to: device, driver and versions."""

import hashlib
import os
import pathlib
import platform
import subprocess

from .library import Library


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def header():
    """What is known without PyTorch. OLS_COMMIT names the commit; otherwise git is asked."""
    root = pathlib.Path(__file__).resolve().parents[2]
    return {
        "commit": os.environ.get("OLS_COMMIT") or output("git", "-C", str(root), "rev-parse", "--short", "HEAD") or "unknown",
        "device": output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or "unknown",
    }


def run(arguments):
    import torch

    library = Library(arguments.library)
    found = {
        "ok": True,
        "libols": library.version,
        "libols_sha256": hashlib.sha256(pathlib.Path(arguments.library).read_bytes()).hexdigest()[:16],
        "python": platform.python_version(), "torch": torch.__version__, "torch_cuda": torch.version.cuda,
        "processor": output("sh", "-c", "sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1"),
    }  # fmt: skip
    if arguments.device == "cuda":
        if not torch.cuda.is_available():
            return {**found, "ok": False, "failures": ["torch.cuda.is_available() is False"]}
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name, "capability": f"{properties.major}.{properties.minor}", "multiprocessors": properties.multi_processor_count,
            "memory_gb": round(properties.total_memory / 1e9), "driver": output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "nvcc": output("nvcc", "--version").split("\n")[-1],
        }  # fmt: skip
        arguments.save({**found, "ok": False})
        # In seconds. Without machine code for the device, the driver compiles the kernels now, and caches them for
        # the other parts.
        found["kernels_loaded_s"] = {"default": library.load()}
        if torch.cuda.get_device_capability() >= (9, 0):
            found["kernels_loaded_s"]["plain"] = library.load("plain")
    return found
