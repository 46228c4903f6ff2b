"""Turn pictures into arrays: decode, crop, resize, normalise.

It needs the spec of one input, not the model. Pillow is optional and imported on first use.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from coinfer.errors import ConfigurationError, InputError
from coinfer.model.inputs import MOST_BYTES
from coinfer.model.specs import TensorSpec
from coinfer.units import format_bytes
from coinfer.workload.input_spec import ImageInputs

__all__ = ["Frame", "read_images"]

_log = logging.getLogger(__name__)

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
# Statistics of ImageNet; grey pictures use those of its luminance.
_MEAN = {1: (0.449,), 3: (0.485, 0.456, 0.406)}
_STD = {1: (0.226,), 3: (0.229, 0.224, 0.225)}

_Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What pictures must become: channels and size in pixels, and where the channels go."""

    channels: int
    height: int
    width: int
    channels_last: bool

    @classmethod
    def of(cls, inputs: ImageInputs, tensor: TensorSpec) -> Frame:
        """Work out the frame from the model's input and what the user says.

        Raises:
            InputError: not an image input, no size known, or a size that the model does not take.
        """
        if len(tensor.shape) != 4:
            raise InputError(f"input {tensor} is not an image of 4 axes; use an .npz file")
        channels_last = _channels_last(inputs, tensor)
        axes = (3, 1, 2) if channels_last else (1, 2, 3)
        channels, height, width = (tensor.shape[axis] for axis in axes)
        if inputs.size is not None:
            height, width = inputs.size
        if not isinstance(height, int) or not isinstance(width, int):
            raise InputError(
                f"input {tensor} leaves the picture's size open; add `size: [224, 224]`"
            )
        if not isinstance(channels, int):
            channels = 3
        if channels not in (1, 3):
            raise InputError(
                f"input {tensor} has {channels} channels, pictures have 1 or 3; use an .npz file"
            )
        return cls(channels=channels, height=height, width=width, channels_last=channels_last)


def _channels_last(inputs: ImageInputs, tensor: TensorSpec) -> bool:
    if inputs.layout != "auto":
        return inputs.layout == "nhwc"
    return tensor.shape[3] in (1, 3) and tensor.shape[1] not in (1, 3)


def read_images(inputs: ImageInputs, tensor: TensorSpec) -> npt.NDArray[Any]:
    """Read and prepare a folder's pictures for one input.

    Float inputs get `(pixel / 255 - mean) / std`; `uint8` inputs get the pixels as they are.

    Returns:
        Shape (pictures, channels, height, width), or with the channels last; the input's dtype.

    Raises:
        InputError: no pictures, one that cannot be decoded, or an input that takes no pictures.
        ConfigurationError: Pillow is not installed.
    """
    frame = Frame.of(inputs, tensor)
    paths = _paths(inputs)
    _check_memory(frame, len(paths), tensor)
    pixels = np.stack([_read(path, inputs, frame) for path in paths])
    values = pixels if tensor.dtype == np.uint8 else _normalised(pixels, inputs, tensor)
    if not frame.channels_last:
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values)


def _paths(inputs: ImageInputs) -> list[Path]:
    if not inputs.folder.is_dir():
        raise InputError(f"there is no folder {inputs.folder}; give one with pictures")
    paths: list[Path] = []
    for path in sorted(inputs.folder.iterdir()):
        if len(paths) < inputs.samples and path.suffix.lower() in _SUFFIXES:
            if path.exists() and not path.is_file():
                _log.warning("%s is no regular file; it is skipped", path)
            else:
                paths.append(path)
    if not paths:
        raise InputError(
            f"folder {inputs.folder} has no pictures; it needs {', '.join(sorted(_SUFFIXES))} files"
        )
    return paths


def _check_memory(frame: Frame, count: int, tensor: TensorSpec) -> None:
    # While they are prepared, there are the pixels and numbers of 32 bits.
    values = count * frame.height * frame.width * frame.channels
    if values * max(tensor.dtype.itemsize, 4) > MOST_BYTES:
        raise InputError(
            f"{count} pictures of {frame.height} x {frame.width} pixels take more than "
            f"{format_bytes(MOST_BYTES)}, the most that is prepared for a model; use fewer "
            f"`samples` or a smaller `size`"
        )


def _pillow() -> tuple[ModuleType, ModuleType]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ConfigurationError(
            "reading pictures needs Pillow; install it with: pip install 'coinfer[images]'"
        ) from error
    return Image, ImageOps


def _read(path: Path, inputs: ImageInputs, frame: Frame) -> _Pixels:
    """Decode one picture into shape (height, width, channels)."""
    image_module, ops = _pillow()
    too_large = image_module.DecompressionBombWarning
    try:
        with warnings.catch_warnings(), _opened(path) as stream:
            # Pillow only warns of pictures of up to twice its limit.
            warnings.simplefilter("error", too_large)
            with image_module.open(stream) as file:
                picture = ops.exif_transpose(file).convert("L" if frame.channels == 1 else "RGB")
    except (too_large, image_module.DecompressionBombError) as error:
        raise InputError(
            f"picture {path} has more than {image_module.MAX_IMAGE_PIXELS} pixels, the limit of "
            f"Pillow; make it smaller"
        ) from error
    except Exception as error:
        # The file is untrusted, and a damaged one raises almost anything in this library.
        raise InputError(f"picture {path} cannot be decoded: {error}") from error
    filter_ = image_module.Resampling[inputs.resize.upper()]
    size = (frame.width, frame.height)
    fits = inputs.crop == "center"
    sized = ops.fit(picture, size, filter_) if fits else picture.resize(size, filter_)
    return np.asarray(sized, dtype=np.uint8).reshape(frame.height, frame.width, frame.channels)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file, also if something else takes its place just now."""
    # Opening a FIFO must not wait for a writer.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError("it is no regular file")
        yield file


def _normalised(pixels: _Pixels, inputs: ImageInputs, tensor: TensorSpec) -> npt.NDArray[Any]:
    if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype.name != "bfloat16":
        raise InputError(f"input {tensor} takes no pictures: it is neither float nor uint8")
    channels = pixels.shape[-1]
    mean = _per_channel("mean", inputs.mean, _MEAN[channels])
    std = _per_channel("std", inputs.std, _STD[channels])
    scaled = pixels.astype(np.float32) / np.float32(255)
    return ((scaled - mean) / std).astype(tensor.dtype)


def _per_channel(
    name: str, given: Sequence[float] | None, default: Sequence[float]
) -> npt.NDArray[np.float32]:
    values = default if given is None else given
    if len(values) not in (1, len(default)):
        raise InputError(
            f"`{name}` has {len(values)} values and the picture {len(default)} channels; "
            f"give 1 or {len(default)}"
        )
    return np.array(values, dtype=np.float32)
