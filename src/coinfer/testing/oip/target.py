"""Target: the server under test, one of its models, and what they say of themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.testing.oip.http_client import Answer, HttpClient
from coinfer.testing.oip.tensors import DATATYPES, ONLY_BINARY, Array, TensorMeta, random_array
from coinfer.testing.oip.verdict import expect, fail, not_offered

if TYPE_CHECKING:
    from coinfer.testing.oip.grpc_client import GrpcClient

__all__ = ["NOBODY", "Metadata", "Target", "expect_error"]

NOBODY = "no-such-model-here"
"""A model that no server has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a server says of a model.

    Attributes:
        name: Its name.
        versions: Those that are served.
        inputs: What it takes.
        outputs: What it gives.
    """

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorMeta, ...]
    outputs: tuple[TensorMeta, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Metadata:
        """Read it; the case fails if it has a wrong form."""
        expect(isinstance(said.get("name"), str), "metadata has no `name`")
        expect(isinstance(said.get("platform"), str), "metadata has no `platform`")
        versions = said.get("versions", [])
        expect(
            isinstance(versions, list) and all(isinstance(each, str) for each in versions),
            "`versions` of the metadata are no texts",
        )
        return cls(
            name=said["name"],
            versions=tuple(versions),
            inputs=_tensors("input", said.get("inputs")),
            outputs=_tensors("output", said.get("outputs")),
        )


def _tensors(kind: str, said: Any) -> tuple[TensorMeta, ...]:
    expect(isinstance(said, list), f"metadata has no list of {kind}s")
    found = []
    for each in said:
        expect(isinstance(each, dict), f"an {kind} of the metadata is no object")
        name, datatype, shape = each.get("name"), each.get("datatype"), each.get("shape")
        expect(isinstance(name, str) and name != "", f"an {kind} has no name")
        expect(datatype in DATATYPES, f"{kind} {name!r} has datatype {datatype!r}")
        expect(
            isinstance(shape, list) and all(type(size) is int and size >= -1 for size in shape),
            f"{kind} {name!r} has shape {shape!r}; sizes are whole numbers, -1 for any",
        )
        found.append(TensorMeta(name=name, datatype=datatype, shape=tuple(shape)))
    return tuple(found)


@dataclass(slots=True, kw_only=True)
class Target:
    """What a case gets.

    Attributes:
        http: Asks over HTTP.
        grpc: Asks over gRPC; None: no address was given.
        tolerance: Largest ||a - b|| / ||b|| between answers to equal requests.
        shapes: Shapes of inputs, by name, that the metadata leaves open.
        extensions: What the server says it offers.
        model: The model; empty: the case is not about one.
        reference: Outputs of the model for `arrays()`, once they are known.
    """

    http: HttpClient
    grpc: GrpcClient | None = None
    tolerance: float = 0.01
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()
    model: str = ""
    _metadata: Metadata | None = None
    reference: dict[str, Array] | None = None

    def of(self, model: str) -> Target:
        """Return the same server with one of its models."""
        return dataclasses.replace(self, model=model, _metadata=None, reference=None)

    @property
    def path(self) -> str:
        """Path of the model."""
        return f"/v2/models/{self.model}"

    @property
    def metadata(self) -> Metadata:
        """Metadata of the model."""
        if self._metadata is None:
            self._metadata = Metadata.of(self.http.get(self.path).object())
        return self._metadata

    def shape(self, meta: TensorMeta, batch: int = 1) -> tuple[int, ...]:
        """Return the shape of an input: open axes are 1, but for what was given and the batch."""
        if meta.name in self.shapes:
            return self.shapes[meta.name]
        return tuple(
            size if size >= 0 else batch if axis == 0 else 1 for axis, size in enumerate(meta.shape)
        )

    def arrays(self, batch: int = 1) -> dict[str, Array]:
        """Make inputs of one request; equal each time."""
        rng = np.random.default_rng(7)
        return {
            meta.name: random_array(meta, rng, self.shape(meta, batch))
            for meta in self.metadata.inputs
        }

    def datatypes(self) -> dict[str, str]:
        """Datatypes of the inputs by name."""
        return {meta.name: meta.datatype for meta in self.metadata.inputs}

    def needs_json(self, tensors: Sequence[TensorMeta]) -> None:
        """End a case that writes these as JSON, if JSON does not have their datatypes."""
        for meta in tensors:
            if meta.datatype in ONLY_BINARY:
                not_offered(f"JSON has no {meta.datatype}, the datatype of {meta.name!r}")

    def offers(self, extension: str) -> bool:
        """Tell whether the server says that it has an extension, with or without notes to it."""
        return extension in {each.partition("(")[0] for each in self.extensions}

    def needs(self, extension: str) -> None:
        """End a case that uses an extension which the server does not say it has."""
        if not self.offers(extension):
            not_offered(f"the server's extensions do not have {extension}")

    def the_grpc(self) -> GrpcClient:
        """Return the client of gRPC, or end the case."""
        if self.grpc is None:
            not_offered("no address for gRPC was given")
        return self.grpc


def expect_error(answer: Answer, *statuses: int) -> None:
    """End a case unless the answer is an error of the protocol with one of these statuses."""
    if answer.status not in statuses:
        wanted = " or ".join(map(str, statuses))
        fail(f"{answer.asked}: status {answer.status}, not {wanted}: {answer.body[:160]!r}")
    said = answer.json()
    if not isinstance(said, dict) or not isinstance(said.get("error"), str) or not said["error"]:
        fail(
            f"{answer.asked}: an error has a body like {{'error': TEXT}}, not {answer.body[:80]!r}"
        )
    if not answer.headers.get("content-type", "").startswith("application/json"):
        fail(f"{answer.asked}: an error has content type {answer.headers.get('content-type')}")
