"""Hardware of a process: accelerator, precision, cores and memory.

Functions import PyTorch where they need it, since others, such as `count_cores`, serve commands that do without.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import re
import resource
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.errors import HardwareError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Hardware:
    """How a run uses its machine."""

    accelerator: str  # Lightning's name: cuda, mps or cpu
    precision: str  # Lightning's name, such as bf16-mixed
    benchmark: bool  # let cuDNN try its algorithms and take the fastest
    matmul_precision: str  # PyTorch's name: `high` lets float32 products run in TensorFloat-32
    pin_memory: bool  # keep batches in page-locked memory, from which copies to the GPU run beside computation


def choose_hardware(accelerator: str, precision: str, deterministic: bool | str | None) -> Hardware:
    """Decide how to use the machine.

    Args:
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: Lightning's name, or `auto`: bf16-mixed on a GPU that computes in it, 16-mixed on another GPU,
            32-true elsewhere (bfloat16 on a CPU without AMX ran nine times slower than float32).
        deterministic: Whether a GPU shall repeat its numbers bit for bit, which costs speed; a CPU always does.

    Raises:
        HardwareError: A GPU was demanded, and there is none.
    """
    import torch

    chosen = _choose_accelerator(accelerator)
    cuda = chosen == "cuda"
    if precision == "auto" and cuda:
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    elif precision == "auto":
        precision = "32-true"
    return Hardware(
        accelerator=chosen,
        precision=precision,
        benchmark=cuda and not deterministic,
        matmul_precision="high" if cuda and not deterministic else "highest",
        pin_memory=cuda,
    )


def set_up_process(hardware: Hardware) -> None:
    """Set what holds for the whole process, and begin with the memory that a run needs."""
    import torch

    torch.set_float32_matmul_precision(hardware.matmul_precision)
    release_memory(hardware.accelerator)
    if hardware.accelerator == "cpu":
        keep_freed_memory()
        spare_gpu_checks()


def choose_memory_format(accelerator: str, frozen: bool, depthwise: bool) -> torch.memory_format:
    """Choose the layout of a backbone's weights, and with them of what flows through it, that is faster where it runs.

    On a CPU channels_last makes inference 1.2 to 1.5 times faster. In training it does so for depthwise convolutions
    (EfficientNet-Lite0: 1.4), but makes wide convolutions' weight gradients slower.
    """
    import torch

    channels_last = accelerator == "cuda" or (accelerator == "cpu" and (frozen or depthwise))
    return torch.channels_last if channels_last else torch.contiguous_format


def can_compile(accelerator: str) -> bool:
    """Return whether torch.compile has the compiler that it needs."""
    compilers = ("cc", "gcc", "clang") if accelerator == "cuda" else ("c++", "g++", "clang++")
    return accelerator in ("cpu", "cuda") and any(map(shutil.which, compilers))


def require_compiler(setting: str, accelerator: str, instead: str) -> None:
    """Raise a HardwareError if a setting demands torch.compile where it cannot work; `instead` is what to take."""
    if not can_compile(accelerator):
        raise HardwareError(
            f"{setting} needs a C++ compiler, and a CPU or CUDA device ({accelerator} here): install one, such as "
            f"Debian's g++, or take {instead}."
        )


def keep_freed_memory() -> None:
    """Have the C library keep memory that was freed, for the next step to use; does nothing where it is not glibc.

    A step on the CPU frees its activations, hundreds of megabytes. By default they go back to the system, which clears
    them page by page when the next step asks anew: half of the time of EfficientNet-Lite0's pass was spent so. It holds
    for the rest of the process, whose memory stays at its peak.
    """
    trim_threshold, mmap_max = -1, -4  # names of mallopt's parameters, M_TRIM_THRESHOLD and M_MMAP_MAX
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(trim_threshold, -1)  # never trim
    mallopt(mmap_max, 0)  # nor take large blocks from the system one by one


def release_memory(accelerator: str) -> None:
    """Give the system what an earlier run of this process has left, and have peaks measured from now on."""
    gc.collect()  # a trainer, its callbacks and its network hold each other
    if accelerator == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError, AttributeError):  # where the C library is not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):  # where the system is not Linux
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def physical_memory() -> float:
    """Return the bytes of this machine's memory; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return math.inf


def count_cores() -> int:
    """Return the number of cores that this process may use, where the system states it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held since `release_memory`: on a CUDA device by PyTorch, elsewhere by this process.

    Systems other than Linux count from the process's start.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def spare_gpu_checks() -> None:
    """Have PyTorch ask for GPUs in its own quick way where there is none.

    Adam asks at each step. Lightning has that go through NVML, so that processes can be forked before CUDA is in use;
    where there is no GPU, that opens a library in vain, which took 0.3 ms, as long as the step of a head.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def _choose_accelerator(accelerator: str) -> str:
    import torch

    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if accelerator == "auto" or (accelerator == "gpu" and found != "cpu"):
        return found
    if accelerator in ("cpu", found):
        return accelerator
    if accelerator in ("gpu", "cuda", "mps"):
        raise HardwareError(
            f"trainer.accelerator={accelerator} demands a GPU, and PyTorch {torch.__version__} sees none of that "
            f"kind on this machine (it sees: {found}). Take trainer=cpu or trainer=default, or check the driver "
            "(nvidia-smi) and that this PyTorch was built for it."
        )
    raise HardwareError(
        f"trainer.accelerator={accelerator} is no accelerator that pneumo runs on: take auto, cpu, gpu, cuda or mps."
    )
