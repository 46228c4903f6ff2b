from __future__ import annotations

from collections.abc import Iterator

import pytest

from coinfer.server.serving import Server
from server.servers import serving, tiny_models


@pytest.fixture(scope="session")
def tiny_server() -> Iterator[Server]:
    """A server of tiny models on onnxruntime; tests leave it as it was."""
    with serving(tiny_models()) as server:
        yield server
