"""What a run was made on. No host name and no path: results are meant to be published."""

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import cpuinfo
import psutil
import torch

from bench.extension import dropout_ext


def _caches() -> str:
    """Size of each cache that the first core sees, as the kernel words it."""
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    words = [[(f / n).read_text().strip() for n in ("level", "type", "size")] for f in folders]
    return ", ".join(f"L{level} {kind.lower()} {size}" for level, kind, size in words)


def _gpu() -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties("cuda")
    names = ("name", "major", "minor", "multi_processor_count", "L2_cache_size", "total_memory")
    return {name: getattr(gpu, name) for name in names} | {"cuda": torch.version.cuda}


def facts(device: str, module: str) -> dict[str, Any]:
    """Machine, software and build, in terms that mean the same on another machine."""
    words = (os.path.basename(argument) or argument for argument in sys.argv[1:])
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": " ".join(["python", "-m", module, *map(shlex.quote, words)]),
        "device": device,
        "cpu": cpuinfo.get_cpu_info().get("brand_raw", platform.machine()),
        "cpu_count": psutil.cpu_count(),
        "cpu_caches": _caches(),
        "cpu_capability_of_torch": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": _gpu() if device == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dropout_ext": dropout_ext.build_info(),
    }


def describe(found: dict[str, Any]) -> list[str]:
    """The facts, one a line, for the head of a report; those of the build in one."""
    build = ", ".join(f"{name} {value}" for name, value in found["dropout_ext"].items())
    return [f"{name:<24} {value}" for name, value in {**found, "dropout_ext": build}.items()]


def seconds_of_others() -> float:
    """Seconds since boot that all cores worked for other processes: others disturb a timing."""
    cpu, own = psutil.cpu_times(), psutil.Process().cpu_times()
    used = own.user + own.system + own.children_user + own.children_system
    return float(cpu.user + cpu.system + getattr(cpu, "steal", 0.0) - used)
