"""What a model is fed with, as a scenario states it. `inputs` makes the arrays."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo

from coinfer.documents.fields import Count, FilePath, Number, PositiveNumber, Section, wrong
from coinfer.workload.dims_spec import Dims

__all__ = [
    "MOST_SAMPLES",
    "ArrayInputs",
    "ImageInputs",
    "InputSpec",
    "RandomInputs",
    "with_dims",
]

MOST_SAMPLES = 100_000
"""Of one model: they are all prepared before the run."""

_Samples = Annotated[Count, Field(le=MOST_SAMPLES)]


class RandomInputs(Section):
    """Seeded noise; whole numbers stay in the range that the model states.

    Attributes:
        samples: How many different feeds are prepared of each size. `random` alone means 8.
        dims: Sizes of the model's open dimensions; the batch is not one of them.
    """

    samples: _Samples = Field(alias="random", default=8)
    dims: Dims = ()


class ImageInputs(Section):
    """Photographs from a folder, prepared as image classifiers expect.

    Attributes:
        folder: Where they are; `.jpg`, `.jpeg`, `.png`, `.bmp` and `.webp`, in order of name.
        samples: At most so many of them are used.
        size: Height and width; by default the model's own.
        crop: `center` cuts the largest middle part of the right proportions out, `none` squeezes
            the whole picture.
        resize: Filter for resizing.
        mean: Subtracted after scaling to 0..1, one for all channels or one each; by default
            ImageNet's.
        std: Divided by after that, in the same form.
        layout: `auto` finds the channel axis from the model's shape.
    """

    folder: FilePath = Field(alias="images")
    samples: _Samples = 32
    size: tuple[Count, Count] | None = None
    crop: Literal["center", "none"] = "center"
    resize: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    mean: tuple[Number, ...] | None = None
    std: tuple[PositiveNumber, ...] | None = None
    layout: Literal["auto", "nchw", "nhwc"] = "auto"


class ArrayInputs(Section):
    """Arrays by input name from an `.npz` file; the first axis counts the samples."""

    file: FilePath = Field(alias="npz")


_KINDS: dict[str, type[RandomInputs | ImageInputs | ArrayInputs]] = {
    "random": RandomInputs,
    "images": ImageInputs,
    "npz": ArrayInputs,
}


def _pick(value: Any, info: ValidationInfo) -> Any:
    """Choose the one class that is meant, so that errors speak of that one only."""
    if isinstance(value, Section):
        return value
    if value == "random":
        return RandomInputs()
    if isinstance(value, str) and value.endswith(".npz"):
        value = {"npz": value}
    kinds = [key for key in value if key in _KINDS] if isinstance(value, dict) else []
    if len(kinds) != 1:
        raise wrong(
            "expected exactly one source of inputs: random, {images: FOLDER} or {npz: FILE.npz}"
        )
    return _KINDS[kinds[0]].model_validate(value, context=info.context)


InputSpec: TypeAlias = Annotated[RandomInputs | ImageInputs | ArrayInputs, BeforeValidator(_pick)]
"""Where a model's inputs come from."""


def with_dims(inputs: InputSpec, dims: Dims) -> InputSpec:
    """Fold sizes that stand beside the inputs into them, so that there is one place for them."""
    if not dims:
        return inputs
    if not isinstance(inputs, RandomInputs):
        raise wrong("have sizes of their own; remove `dims`, or make the inputs `random`")
    if inputs.dims:
        raise wrong("state `dims`, and the model does too; keep one of them")
    return inputs.model_copy(update={"dims": dims})
