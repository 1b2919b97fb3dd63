"""Names of processors and accelerators, for figures that depend on them."""

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CPU_INFO = Path("/proc/cpuinfo")


def machine() -> str:
    """Name of the processor, and the number of cores that this process may use."""
    stated = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.is_file() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", stated, re.M)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores"


def hardware(device: "torch.device", ranks: int = 1) -> str:
    """Name of the hardware that computes on a device of torch: of the accelerator, or else of the processor.

    Args:
        device: Device.
        ranks: Number of processes that compute together, each on an accelerator of its own.
    """
    import torch  # not at the top: tables of the documentation are made without it

    if device.type == "cpu":
        return machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} of {machine()}"
    return f"{ranks} × {name}" if ranks > 1 else name
