"""What a run was made on. No host name and no path: results are meant to be published."""

import datetime
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.extension import dropout_ext


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _caches() -> dict[str, str]:
    """Size of each cache that the first core sees, as the kernel words it."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        found[f"L{level} {kind.lower()}"] = size
    return found


def _driver() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.splitlines()[0].strip() if answer.stdout.strip() else None


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties("cuda")
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "memory_bytes": properties.total_memory,
        "driver": _driver(),
        "cuda_runtime": torch.version.cuda,
    }


def command(arguments: Sequence[str], module: str) -> str:
    """The command line, folders left out of its file names."""
    words = (os.path.basename(argument) or argument for argument in arguments)
    return " ".join(["python", "-m", module, *map(shlex.quote, words)])


def facts(device: str, module: str) -> dict[str, Any]:
    """Machine, software and build, in terms that mean the same on another machine."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": command(sys.argv[1:], module),
        "device": device,
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
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
    """The facts in a few lines for the head of a report."""
    build = found["dropout_ext"]
    lines = [
        f"{found['command']}   ({found['date']})",
        f"CPU  {found['cpu']}, {found['cpu_count']} cores, {found['threads']} threads; "
        + ", ".join(f"{name} {size}" for name, size in found["cpu_caches"].items()),
    ]
    if found["gpu"]:
        gpu = found["gpu"]
        lines.append(
            f"GPU  {gpu['name']}, sm_{gpu['capability'].replace('.', '')}, "
            f"{gpu['multiprocessors']} SMs, L2 {gpu['l2_bytes'] >> 20} MiB, driver {gpu['driver']}"
        )
    lines.append(
        f"software  Python {found['python']}, torch {found['torch']}, {found['system']}; "
        f"dropout_ext {build['version']}: CPU path {build['cpu_path']} of "
        f"{'/'.join(build['cpu_paths'])}, CUDA {build['cuda'] or 'not built'}"
    )
    return lines
