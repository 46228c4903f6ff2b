"""Where artefacts are kept, and how many bytes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.artefacts import default_store
from coinfer.artefacts.cpu import cpu_type
from coinfer.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "limit"), [("", 8 * 2**30), ("20GiB", 20 * 2**30), ("0", 0), ("500MB", 500_000_000)]
)
def test_the_environment_sets_the_limit(
    text: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))
    monkeypatch.setenv("COINFER_ARTEFACTS", text)
    found = default_store()
    assert (found.folder, found.limit_bytes) == (tmp_path / "artefacts", limit)


@pytest.mark.parametrize("text", ["much", "-1", "5 parsecs"])
def test_what_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINFER_ARTEFACTS", text)
    with pytest.raises(ConfigurationError, match=r"COINFER_ARTEFACTS: .* is not a size"):
        default_store()


def cpu(folder: Path, text: str) -> str:
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc/cpuinfo").write_text(text)
    cpu_type.cache_clear()
    try:
        return cpu_type(folder)
    finally:
        cpu_type.cache_clear()


CORE = "processor : {}\nmodel name : A\nflags : {}\ncpu MHz : {}\n\n"


def test_the_processor_type_is_that_of_the_instruction_sets(tmp_path: Path) -> None:
    two = cpu(tmp_path, CORE.format(0, "avx avx2", 1000) + CORE.format(1, "avx2 avx", 2000))
    assert two == cpu(tmp_path, CORE.format(7, "avx avx2", 3000))
    assert two != cpu(tmp_path, CORE.format(0, "avx avx2 avx512f", 1000))
    assert two != cpu(tmp_path, CORE.format(0, "avx avx2", 1) + CORE.format(1, "avx", 1))


def test_limits_of_the_instruction_sets_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cpu(tmp_path, CORE.format(0, "avx", 1))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert cpu(tmp_path, CORE.format(0, "avx", 1)) != before
