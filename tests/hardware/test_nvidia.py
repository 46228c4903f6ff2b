"""What is missing to use an NVIDIA GPU is found, with the remedy that fits the driver."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from coinfer.backends import Availability, Device
from coinfer.backends.base import Session
from coinfer.backends.null import NullBackend
from coinfer.errors import BackendError
from coinfer.hardware import diagnosis
from coinfer.hardware.nvidia import NvidiaFacts, find_nvidia
from coinfer.machine.processor import Processor
from coinfer.model import Model
from hardware.fake_root import write

CARD = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000",
    "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de",
    "sys/bus/pci/devices/0000:01:00.1/class": "0x040300",  # its sound
    "sys/bus/pci/devices/0000:00:02.0/vendor": "0x8086",
    "sys/bus/pci/devices/0000:00:02.0/class": "0x030000",
}


def driver(version: str) -> Mapping[str, str]:
    text = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build"
    return {"proc/driver/nvidia/version": text, "dev/nvidia0": "", "dev/nvidiactl": ""}


def problem(tmp_path: Path, *files: Mapping[str, str], torch: str | None = None) -> str:
    merged = {name: text for each in files for name, text in each.items()}
    found = find_nvidia(root=write(tmp_path, merged)).problem([], torch)
    return "" if found is None else " -> ".join(found)


def test_without_such_a_gpu_there_is_nothing_to_mend(tmp_path: Path) -> None:
    assert problem(tmp_path) == ""


def test_a_card_without_driver_needs_one(tmp_path: Path) -> None:
    assert problem(tmp_path, CARD).startswith("1 NVIDIA GPU found, but no driver is loaded")


def test_a_container_must_be_given_the_card(tmp_path: Path) -> None:
    only = {"proc/driver/nvidia/version": driver("580.65.06")["proc/driver/nvidia/version"]}
    assert "--gpus all" in problem(tmp_path, CARD, only)


@pytest.mark.parametrize(
    ("version", "wheel"), [("580.65.06", "cu130"), ("570.86.15", "cu126"), ("535.54.03", "cu126")]
)
def test_the_wheel_fits_the_driver(tmp_path: Path, version: str, wheel: str) -> None:
    found = problem(tmp_path, CARD, driver(version))
    assert "torch is not installed" in found
    assert found.endswith(f"--index-url https://download.pytorch.org/whl/{wheel}")


def test_a_torch_for_the_cpu_is_named(tmp_path: Path) -> None:
    found = problem(tmp_path, CARD, driver("580.65.06"), torch="2.13.0+cpu")
    assert "torch 2.13.0+cpu cannot use them" in found


def test_an_old_driver_must_be_renewed(tmp_path: Path) -> None:
    assert "driver 470 is older" in problem(tmp_path, CARD, driver("470.82.01"))


def test_where_a_backend_reports_the_gpu_nothing_is_missing(tmp_path: Path) -> None:
    facts = find_nvidia(root=write(tmp_path, {**CARD, **driver("580.65.06")}))
    assert facts.problem(["CUDA:0"], "2.13.0") is None


def missing(driver: int | None, wheels: str = "onnxruntime", *failures: str) -> str:
    facts = NvidiaFacts(cards=1, driver=driver, reachable=driver is not None)
    has_provider = wheels == "onnxruntime-gpu"
    found = facts.onnxruntime_problem([wheels], failures, has_provider=has_provider)
    return "" if found is None else " -> ".join(found)


@pytest.mark.parametrize(
    ("version", "wheel"),
    [(580, "onnxruntime-gpu[cuda,cudnn]'"), (570, "onnxruntime-gpu[cuda,cudnn]<1.27'")],
)
def test_the_onnxruntime_that_fits_the_driver_takes_the_place_of_the_other(
    version: int, wheel: str
) -> None:
    found = missing(version)
    assert "onnxruntime has no provider for them" in found
    assert found.endswith(f"pip uninstall -y onnxruntime onnxruntime-gpu; pip install '{wheel}")


def test_an_onnxruntime_that_cannot_load_its_libraries_is_told_why() -> None:
    why = "CUDAExecutionProvider took none of its operators"
    assert why in missing(580, "onnxruntime-gpu", why)
    assert missing(580, "onnxruntime-gpu") == ""


def test_without_a_driver_that_fits_onnxruntime_is_not_the_matter() -> None:
    assert missing(None) == missing(470) == ""


class _OnnxRuntime(NullBackend):
    """Reports a GPU, on which nothing runs."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "onnxruntime"

    def devices(self) -> tuple[Device, ...]:
        return (Device(name="CUDA:0", kind="gpu", precisions=("fp32",), description="a GPU"),)

    def load(self, model: Model, processor: Processor) -> Session:
        raise BackendError(f"model {model.name!r} on processor {processor.name!r}: no libcudnn")


def test_the_diagnosis_tries_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = NvidiaFacts(cards=1, driver=580, reachable=True)
    monkeypatch.setattr(diagnosis, "find_nvidia", lambda: facts)
    there = (Availability(name="onnxruntime", backend=_OnnxRuntime(), problem=""),)
    monkeypatch.setattr(diagnosis, "available", lambda: there)
    found = {each.remedy: each for each in diagnosis.diagnose().findings}
    assert "pip install --upgrade torch" in " ".join(found)
    (ours,) = (each for remedy, each in found.items() if "onnxruntime-gpu[cuda,cudnn]" in remedy)
    assert "no libcudnn" in ours.text


def test_the_diagnosis_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = NvidiaFacts(cards=2, driver=580, reachable=True)
    monkeypatch.setattr(diagnosis, "find_nvidia", lambda: facts)
    (finding,) = (each for each in diagnosis.diagnose().findings if "2 NVIDIA GPUs" in each.text)
    assert "pip install" in finding.remedy


def test_torch_is_not_imported_for_nothing() -> None:
    code = (
        "import sys; from coinfer.hardware import default_processors, describe, nvidia;"
        "default_processors(); describe();"
        "sys.exit('torch' in sys.modules and not nvidia.find_nvidia().reachable)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
