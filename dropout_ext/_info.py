"""What was built, and what of it runs here."""

from typing import Any

from dropout_ext import _C, _build


def build_info() -> dict[str, Any]:
    """Facts about this build.

    Returns:
        A dict of ``version``; ``torch``, the version the extension was built for; ``cuda``, the
        toolkit's version, and ``cuda_archs``, the architectures as in ``TORCH_CUDA_ARCH_LIST``,
        both None in a build without CUDA; ``cpu_paths``, the instruction sets that this machine
        can run, best last; ``cpu_path``, the active one (``DROPOUT_EXT_CPU`` forces it).
    """
    facts = _C.build_facts()
    return {
        "version": _build.VERSION,
        "torch": _build.TORCH_VERSION,
        "cuda": facts["cuda"],
        "cuda_archs": facts["cuda_archs"].split(";") if facts["cuda_archs"] else None,
        "cpu_paths": _C.cpu_paths(),
        "cpu_path": _C.cpu_path(),
    }
