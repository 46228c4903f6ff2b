"""A damaged file loads or raises `ModelError`; nothing else may come out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coinfer import zoo
from coinfer.errors import ModelError
from coinfer.model import load_model, model_from_ir
from model.onnx_files import dense

FILES = {
    "dense": dense().SerializeToString(),
    "branchy": model_from_ir(zoo.build("tiny_branchy"), name="b").to_bytes(),
}
relaxed = settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def load(data: bytes, folder: Path) -> None:
    path = folder / "m.onnx"
    path.write_bytes(data)
    with contextlib.suppress(ModelError):
        loaded = load_model(path)
        assert loaded.fingerprint.structure
        assert loaded.outputs


@pytest.mark.parametrize("name", sorted(FILES))
@relaxed
@given(data=st.data())
def test_flipped_bytes_raise_nothing_but_model_error(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(FILES[name])
    # The first and last kilobyte hold the structure, the middle is mostly weights.
    places = st.one_of(
        st.integers(0, min(1023, len(content) - 1)),
        st.integers(max(0, len(content) - 1024), len(content) - 1),
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    load(bytes(content), tmp_path)


@pytest.mark.parametrize("name", sorted(FILES))
@relaxed
@given(data=st.data())
def test_truncation_raises_nothing_but_model_error(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    content = FILES[name]
    load(content[: data.draw(st.integers(0, len(content) - 1))], tmp_path)
