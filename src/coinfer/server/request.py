"""What a client asks and what it is answered, as both protocols say it. Values; no transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "NO_PARAMETERS",
    "InferRequest",
    "InferResponse",
    "InputTensor",
    "OutputTensor",
    "RequestForm",
    "Wanted",
]

Parameters = Mapping[str, bool | int | float | str]

NO_PARAMETERS: Parameters = MappingProxyType({})


class InputTensor(NamedTuple):
    """A tensor that a client sends.

    Attributes:
        name: Of the model's input.
        datatype: The protocol's name of the element type.
        array: Its elements; the shape is the array's.
    """

    name: str
    datatype: str
    array: np.ndarray[Any, Any]


class Wanted(NamedTuple):
    """An output that a client asks for.

    Attributes:
        name: Of the model's output.
        parameters: How it is wanted: `classification`, `shared_memory_region`, and what concerns
            the transport alone, such as `binary_data`.
    """

    name: str
    parameters: Parameters = NO_PARAMETERS


class RequestForm:
    """What requests have in common that differ in their tensors only.

    Clients that ask again and again send the same fields each time. What the checks of one request
    found is true for the next, as long as the same version of the model answers.

    Attributes:
        checked: A `Checked`; None: nothing was found out yet.
    """

    __slots__ = ("checked",)

    def __init__(self) -> None:
        self.checked: Any = None


class InferRequest(NamedTuple):
    """One inference that a client asks for.

    Attributes:
        model: Name of the model.
        inputs: Tensors, each with another name.
        version: Of the model; empty: the one served by default.
        id: What the client calls the request; it gets that back.
        parameters: Of the request: `priority`, `timeout` and others.
        outputs: The outputs that are wanted; empty: all.
        form: What it has in common with others that were read; None: it was read alone.
    """

    model: str
    inputs: Sequence[InputTensor]
    version: str = ""
    id: str = ""
    parameters: Parameters = NO_PARAMETERS
    outputs: Sequence[Wanted] = ()
    form: RequestForm | None = None


class OutputTensor(NamedTuple):
    """A tensor of an answer.

    Attributes:
        name: Of the model's output.
        datatype: The protocol's name of the element type.
        shape: Sizes of its axes.
        array: Its elements; None if they were written into shared memory.
        parameters: What the client is told beside: where in shared memory it is.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: np.ndarray[Any, Any] | None
    parameters: Parameters = NO_PARAMETERS


class InferResponse(NamedTuple):
    """The answer to one inference.

    Attributes:
        model: Name of the model.
        version: The version that answered.
        id: What the client calls the request.
        outputs: In the order asked for, or in the model's.
        parameters: What is said beside.
    """

    model: str
    version: str
    id: str
    outputs: Sequence[OutputTensor]
    parameters: Parameters = NO_PARAMETERS
