import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pneumo.common.hardware import choose_hardware, choose_memory_format, disable_nvml_check, require_compiler
from pneumo.errors import HardwareError


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: bool = False, bf16: bool = False, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "bf16", "mps", "accelerator", "chosen", "precision"),
    [
        (True, True, False, "auto", "cuda", "bf16-mixed"),
        (True, False, False, "gpu", "cuda", "16-mixed"),
        (True, True, False, "cpu", "cpu", "32-true"),
        (False, False, True, "auto", "mps", "32-true"),
        (False, False, False, "auto", "cpu", "32-true"),
    ],
)
def test_auto_chooses_the_fastest_available_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, bf16: bool, mps: bool, accelerator: str, chosen: str, precision: str
) -> None:
    pretend(monkeypatch, cuda, bf16, mps)
    hardware = choose_hardware(accelerator, "auto", deterministic=False)
    assert (hardware.accelerator, hardware.precision) == (chosen, precision)
    assert hardware.pin_memory == hardware.benchmark == (chosen == "cuda")


def test_an_explicit_precision_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=True, bf16=True)
    assert choose_hardware("gpu", "32-true", deterministic=False).precision == "32-true"


def test_deterministic_disables_nondeterministic_options(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=True, bf16=True)
    fast = choose_hardware("gpu", "auto", deterministic=False)
    exact = choose_hardware("gpu", "auto", deterministic=True)
    assert (fast.benchmark, fast.matmul_precision) == (True, "high")
    assert (exact.benchmark, exact.matmul_precision) == (False, "highest")


@pytest.mark.parametrize(
    ("accelerator", "frozen", "depthwise", "last"),
    [
        ("cuda", False, False, True),
        ("cpu", True, False, True),
        ("cpu", False, True, True),
        ("cpu", False, False, False),
        ("mps", True, True, False),
    ],
)
def test_channels_last_is_used_where_it_is_faster(accelerator: str, frozen: bool, depthwise: bool, last: bool) -> None:
    assert (choose_memory_format(accelerator, frozen, depthwise) == torch.channels_last) == last


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps", "tpu"])
def test_an_unavailable_accelerator_is_an_error(monkeypatch: pytest.MonkeyPatch, accelerator: str) -> None:
    pretend(monkeypatch)
    with pytest.raises(HardwareError, match=f"trainer.accelerator={accelerator}"):
        choose_hardware(accelerator, "auto", deterministic=False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="does nothing elsewhere")
@pytest.mark.slow
def test_freed_memory_is_kept() -> None:
    code = """
import sys, torch
from pathlib import Path
from pneumo.common.hardware import keep_freed_memory
if sys.argv[1] == "keep": keep_freed_memory()
for _ in range(2):
    x = torch.ones(2**26)
    del x
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
"""
    kept, released = (
        int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "no")
    )
    assert kept > released + 200 * 2**20


def test_the_nvml_check_is_disabled_only_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as `import lightning` does
    pretend(monkeypatch, cuda=True)
    disable_nvml_check()
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    pretend(monkeypatch)
    disable_nvml_check()
    assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ


@pytest.mark.slow
def test_hardware_is_imported_without_pytorch() -> None:
    code = "import sys, pneumo.common.hardware as hardware; print(hardware.count_cores() > 0, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="only Linux can reset the peak")
@pytest.mark.slow
def test_peak_memory_is_measured_from_the_start_of_a_run() -> None:
    code = """
import torch
from pneumo.common.hardware import keep_freed_memory, peak_memory, release_memory
keep_freed_memory()
device = torch.device("cpu")
torch.ones(100 << 20)
print(peak_memory(device))
release_memory("cpu")
print(peak_memory(device))
torch.ones(100 << 20)
print(peak_memory(device))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, released, after = map(int, done.stdout.split())
    assert released < before - (300 << 20)
    assert after > before - (100 << 20)


@pytest.mark.parametrize(("accelerator", "compiler"), [("cpu", "g++"), ("cuda", "gcc")])
def test_torch_compile_requires_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accelerator: str, compiler: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HardwareError, match=r"compile=true requires a C\+\+ compiler.*use compile=false"):
        require_compiler("compile=true", accelerator, "compile=false")
    (tmp_path / compiler).touch(mode=0o755)
    require_compiler("compile=true", accelerator, "compile=false")
    with pytest.raises(HardwareError, match="the device is mps"):
        require_compiler("compile=true", "mps", "compile=false")
