"""Hardware of a process: accelerator, precision, cores and memory.

PyTorch is imported inside functions: commands without PyTorch use other functions of this module, such as
`count_cores`.
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
    """Hardware settings of a run."""

    accelerator: str  # Lightning's name: cuda, mps or cpu
    precision: str  # Lightning's name, such as bf16-mixed
    benchmark: bool  # cuDNN times its algorithms and uses the fastest
    matmul_precision: str  # for `torch.set_float32_matmul_precision`; `high` allows TensorFloat-32
    pin_memory: bool  # page-locked batches, whose copies to the GPU overlap with computation


def choose_hardware(accelerator: str, precision: str, deterministic: bool | str | None) -> Hardware:
    """Choose accelerator, precision and related settings for this machine.

    Args:
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: Lightning's name, or `auto`. `auto` is bf16-mixed on a GPU with native bfloat16, 16-mixed on other
            GPUs and 32-true elsewhere: bfloat16 on a CPU without AMX was nine times slower than float32.
        deterministic: Whether GPU results must be bit-identical between runs, which is slower. CPU results always are.

    Raises:
        HardwareError: A GPU was requested, but none is available.
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
    """Set process-wide options of PyTorch and of memory allocation for a run."""
    import torch

    torch.set_float32_matmul_precision(hardware.matmul_precision)
    release_memory(hardware.accelerator)
    if hardware.accelerator == "cpu":
        keep_freed_memory()
        disable_nvml_check()


def choose_memory_format(accelerator: str, frozen: bool, depthwise: bool) -> torch.memory_format:
    """Choose the faster memory format of a backbone's weights, which its activations follow.

    On a CPU, channels_last makes inference 1.2 to 1.5 times faster. In training it speeds up depthwise convolutions
    (EfficientNet-Lite0: 1.4 times) but slows down the weight gradients of wide convolutions.
    """
    import torch

    channels_last = accelerator == "cuda" or (accelerator == "cpu" and (frozen or depthwise))
    return torch.channels_last if channels_last else torch.contiguous_format


def can_compile(accelerator: str) -> bool:
    """Return whether torch.compile can work: on a CPU or CUDA device, with a C or C++ compiler installed."""
    compilers = ("cc", "gcc", "clang") if accelerator == "cuda" else ("c++", "g++", "clang++")
    return accelerator in ("cpu", "cuda") and any(map(shutil.which, compilers))


def require_compiler(setting: str, accelerator: str, instead: str) -> None:
    """Raise a HardwareError if a setting requires torch.compile but it cannot work; the message suggests `instead`."""
    if not can_compile(accelerator):
        raise HardwareError(
            f"{setting} requires a C++ compiler and a CPU or CUDA device (the device is {accelerator}). Install a "
            f"compiler, such as g++ from Debian, or use {instead}."
        )


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for reuse; other C libraries are left unchanged.

    A training step on the CPU frees hundreds of megabytes of activations. By default glibc returns them to the system,
    which clears every page again for the next step. This took half of the time of EfficientNet-Lite0's forward pass.
    The setting lasts for the rest of the process, whose memory use stays at its peak.
    """
    trim_threshold, mmap_max = -1, -4  # mallopt's M_TRIM_THRESHOLD and M_MMAP_MAX
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(trim_threshold, -1)  # never trim
    mallopt(mmap_max, 0)  # do not map large blocks individually


def release_memory(accelerator: str) -> None:
    """Release the memory of earlier runs of this process and reset peak-memory statistics."""
    gc.collect()  # a trainer, its callbacks and its network are a reference cycle
    if accelerator == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError, AttributeError):  # other C libraries than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):  # other systems than Linux
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def physical_memory() -> float:
    """Return the physical memory of this machine in bytes; infinity if unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return math.inf


def count_cores() -> int:
    """Return the number of cores that this process may use; all cores if the system does not report it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes since `release_memory`: of PyTorch on a CUDA device, otherwise of this process.

    On systems other than Linux, it is the peak since the start of the process.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def disable_nvml_check() -> None:
    """Disable Lightning's NVML-based GPU check on machines without a GPU.

    Adam checks for GPUs in each step. Lightning lets PyTorch check through NVML, so that processes can be forked before
    CUDA is initialized. Without a GPU, each check searches for the NVML library, which takes 0.3 ms: about as
    long as a whole training step of a head on cached features.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def _choose_accelerator(accelerator: str) -> str:
    import torch

    available = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if accelerator == "auto" or (accelerator == "gpu" and available != "cpu"):
        return available
    if accelerator in ("cpu", available):
        return accelerator
    if accelerator in ("gpu", "cuda", "mps"):
        raise HardwareError(
            f"trainer.accelerator={accelerator} requires a GPU, but PyTorch {torch.__version__} detects none of that "
            f"kind on this machine (detected: {available}). Use trainer=cpu or trainer=default, or check the driver "
            "(nvidia-smi) and that this PyTorch build supports it."
        )
    raise HardwareError(f"trainer.accelerator={accelerator} is not supported: it must be auto, cpu, gpu, cuda or mps.")
