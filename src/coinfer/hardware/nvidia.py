"""Nvidia: whether this machine has an NVIDIA GPU that cannot be used yet, and what is missing.

Reads what Linux shows in files; imports no library and opens no device.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NvidiaFacts", "find_nvidia"]

_VENDOR = "0x10de"
_DISPLAY = "0x03"
_WHEELS = ((580, "cu130"), (525, "cu126"))
"""The oldest driver for each kind of torch wheel, the newest first. A driver runs what was made
for its CUDA version and for older ones (NVIDIA, CUDA Compatibility, table of minor versions)."""

_ONNXRUNTIMES = (
    (580, "onnxruntime-gpu[cuda,cudnn]"),
    (525, "onnxruntime-gpu[cuda,cudnn]<1.27"),
)
"""The same for onnxruntime: since 1.27 its wheels on PyPI are made for CUDA 13, before for 12. The
extras are CUDA's own libraries."""

_INDEX = "https://download.pytorch.org/whl"


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaFacts:
    """What the system shows of NVIDIA GPUs.

    Attributes:
        cards: How many are on the PCI bus.
        driver: Main version of the kernel's driver; None: it is not loaded.
        reachable: Whether this process sees a device of it, as a container may not.
    """

    cards: int
    driver: int | None
    reachable: bool

    def problem(self, gpus: Iterable[str], torch: str | None) -> tuple[str, str] | None:
        """Say what is missing to use them, and the remedy; None if nothing is.

        Args:
            gpus: Names of the CUDA devices that backends report.
            torch: The installed torch's version; None: it is not installed.
        """
        if any(gpus) or not (self.cards or self.driver):
            return None
        count = f"{self.cards or 1} NVIDIA GPU{'s' if self.cards > 1 else ''} found"
        if self.driver is None:
            return (
                f"{count}, but no driver is loaded",
                "install NVIDIA's driver 580 or later; see https://www.nvidia.com/drivers",
            )
        if not self.reachable:
            return (
                f"{count} with driver {self.driver}, but this process may not use them",
                "start the container with them, e.g. docker run --gpus all",
            )
        wheel = next((kind for oldest, kind in _WHEELS if self.driver >= oldest), None)
        if wheel is None:
            return (
                f"{count}, but driver {self.driver} is older than what torch is made for",
                "install NVIDIA's driver 580 or later; see https://www.nvidia.com/drivers",
            )
        has = "torch is not installed" if torch is None else f"torch {torch} cannot use them"
        return (
            f"{count} with driver {self.driver}, but {has}",
            f"pip install --upgrade torch --index-url {_INDEX}/{wheel}",
        )

    def onnxruntime_problem(
        self, wheels: Iterable[str], failures: Iterable[str], *, has_provider: bool
    ) -> tuple[str, str] | None:
        """Say what onnxruntime is missing to use them, and the remedy.

        Args:
            wheels: Names of the installed wheels that contain onnxruntime.
            failures: Why nothing runs on the CUDA devices that it reports.
            has_provider: Whether it reports CUDA devices.

        Returns:
            None if nothing is missing, or what `problem` says comes first.
        """
        wheel = next((w for oldest, w in _ONNXRUNTIMES if (self.driver or 0) >= oldest), None)
        if wheel is None or not self.reachable:
            return None
        why = next(iter(failures), "")
        if has_provider and not why:
            return None
        if not has_provider:
            why = f"{' and '.join(wheels) or 'onnxruntime'} has no provider for them"
        gone = "pip uninstall -y onnxruntime onnxruntime-gpu; "
        return (
            f"onnxruntime cannot use the NVIDIA GPU here: {why}",
            f"{gone}pip install '{wheel}'",
        )


def find_nvidia(*, root: Path = Path("/")) -> NvidiaFacts:
    """Look at the PCI bus, the driver and its device files."""
    return NvidiaFacts(
        cards=sum(_is_card(each) for each in _listed(root / "sys/bus/pci/devices")),
        driver=_driver(root / "proc/driver/nvidia/version"),
        reachable=_is_reachable(root),
    )


def _is_reachable(root: Path) -> bool:
    if sys.platform == "win32":
        return shutil.which("nvidia-smi") is not None
    # In the Linux of Windows there is only /dev/dxg.
    return any(re.fullmatch(r"nvidia\d+|dxg", each.name) for each in _listed(root / "dev"))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_card(device: Path) -> bool:
    return _text(device / "vendor") == _VENDOR and _text(device / "class").startswith(_DISPLAY)


def _driver(file: Path) -> int | None:
    found = re.search(r"\b(\d{3})\.\d+", _text(file))
    return int(found[1]) if found else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
