"""Inputs: what models are fed with, prepared before the run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from coinfer.errors import ConfigurationError, InputError
from coinfer.model import Model, model_from_ir
from coinfer.testing.models import model_from_text
from coinfer.workload.input_spec import ArrayInputs, ImageInputs, RandomInputs
from coinfer.workload.inputs import prepare_feeds

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def model(model_name: str = "net", /, **inputs: str) -> Model:
    """A model that hands its inputs through: `model(x="float[N,3,8,8]")`."""
    taken = ", ".join(f"{kind} {name}" for name, kind in inputs.items())
    given = ", ".join(f"{kind} {name}_out" for name, kind in inputs.items())
    body = "\n".join(f"{name}_out = Identity({name})" for name in inputs)
    text = f'<ir_version: 10, opset_import: ["" : 18]>\nnet ({taken}) => ({given}) {{ {body} }}'
    return model_from_ir(ir.from_onnx_text(text), name=model_name)


def picture(path: Path, height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Write a lossless picture; return its pixels."""
    shape = (height, width, channels) if channels == 3 else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def images(source: ImageInputs, net: Model, *, batch: int = 1) -> np.ndarray:
    """All feeds of a one-input model, one after the other."""
    feeds = prepare_feeds(source, net, batch=batch, seed=0)
    return np.concatenate([feed["x"] for feed in feeds])


def triangle_matrix(size: int, start: float, stop: float, out: int) -> np.ndarray:
    """Weights of bilinear resizing with antialiasing, from its definition: shape (out, size)."""
    scale = (stop - start) / out
    reach = max(scale, 1.0)
    centres = start + (np.arange(out) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


# --- pictures ---------------------------------------------------------------------------------


def test_pixels_are_normalised_per_channel_in_the_models_layout(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", 8, 8)
    source = ImageInputs(images=tmp_path, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    expected = (pixels / 255.0 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    # Float32 arithmetic of three operations on values up to 4.
    tolerance = 4 * 4 * np.finfo(np.float32).eps
    nchw = images(source, model(x="float[N,3,8,8]"))
    np.testing.assert_allclose(nchw[0], expected.transpose(2, 0, 1), rtol=0, atol=tolerance)
    nhwc = images(source, model(x="float[N,8,8,3]"))
    np.testing.assert_allclose(nhwc[0], expected, rtol=0, atol=tolerance)
    assert nchw.dtype == nhwc.dtype == np.float32


def test_the_default_normalisation_is_imagenets(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", 8, 8)
    found = images(ImageInputs(images=tmp_path), model(x="float[N,3,8,8]"))
    expected = (pixels / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), rtol=0, atol=1e-5)


def test_bytes_are_passed_as_they_are(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", 8, 8)
    found = images(ImageInputs(images=tmp_path), model(x="uint8[N,3,8,8]"))
    np.testing.assert_array_equal(found[0], pixels.transpose(2, 0, 1))


def test_half_precision_models_get_half_precision(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 8, 8)
    assert images(ImageInputs(images=tmp_path), model(x="float16[N,3,8,8]")).dtype == np.float16


def test_one_channel_means_grey(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", 8, 8, channels=1)
    source = ImageInputs(images=tmp_path, mean=(0.0,), std=(1.0,))
    found = images(source, model(x="float[N,1,8,8]"))
    np.testing.assert_allclose(found[0, 0], pixels / 255.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("crop", "top"), [("center", 10), ("none", 0)])
def test_cropping_and_resizing_agree_with_their_definition(
    tmp_path: Path, crop: str, top: int
) -> None:
    pixels = picture(tmp_path / "a.png", 60, 40)
    source = ImageInputs.model_validate({"images": tmp_path, "crop": crop})
    found = images(source, model(x="uint8[N,16,16,3]"))[0]
    # 60 x 40 becomes square: the middle 40 x 40, or all of it squeezed.
    rows = triangle_matrix(60, top, 60 - top, 16)
    columns = triangle_matrix(40, 0, 40, 16)
    expected = np.einsum("ih,jw,hwc->ijc", rows, columns, pixels.astype(float))
    # Pillow rounds to a whole level after each of its two passes.
    assert np.abs(found - expected).max() <= 1.0


def test_the_size_given_fills_open_dimensions(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 60, 40)
    source = ImageInputs(images=tmp_path, size=(12, 20))
    assert images(source, model(x="float[N,3,H,W]")).shape == (1, 3, 12, 20)


def test_pictures_come_in_order_of_name_and_batches_go_round(tmp_path: Path) -> None:
    pixels = [picture(tmp_path / f"{name}.png", 8, 8, seed=ord(name)) for name in "cab"]
    (tmp_path / "LICENSES.md").write_text("not a picture")
    feeds = prepare_feeds(ImageInputs(images=tmp_path), model(x="uint8[N,8,8,3]"), batch=2, seed=0)
    c, a, b = pixels
    expected = [[a, b], [c, a], [b, c]]
    assert len(feeds) == 3
    for feed, pair in zip(feeds, expected, strict=True):
        np.testing.assert_array_equal(feed["x"], pair)
        assert feed["x"].flags.c_contiguous


def test_at_most_the_stated_number_of_pictures_is_read() -> None:
    source = ImageInputs(images=PHOTOS, samples=3)
    assert len(prepare_feeds(source, model(x="float[N,3,8,8]"), batch=1, seed=0)) == 3


def test_the_shipped_photographs_fill_the_standard_input() -> None:
    found = images(ImageInputs(images=PHOTOS), model(x="float[N,3,224,224]"))
    assert found.shape[0] >= 6
    assert found.shape[1:] == (3, 224, 224)
    # Real pictures: neither flat nor all alike.
    assert found.std(axis=(1, 2, 3)).min() > 0.3
    assert len(np.unique(found.mean(axis=(1, 2, 3)))) == len(found)


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ({}, "float[N,3,H,W]", "leaves the picture's size open; add `size: [224, 224]`"),
        ({}, "float[N,10]", "is not an image of 4 axes; use an .npz file"),
        ({}, "float[N,4,8,8]", "has 4 channels, pictures have 1 or 3"),
        ({}, "int64[N,3,8,8]", "takes no pictures: it is neither float nor uint8"),
        ({"size": (9, 9)}, "float[N,3,8,8]", "takes shape [N,3,8,8] but got [1, 3, 9, 9]"),
        ({"mean": (0.5, 0.5)}, "float[N,3,8,8]", "`mean` has 2 values and the picture 3 channels"),
        ({"images": "none"}, "float[N,3,8,8]", "there is no folder"),
        ({"images": "empty"}, "float[N,3,8,8]", "has no pictures; it needs .bmp, .jpeg, .jpg"),
        ({"images": "broken"}, "float[N,3,8,8]", "x.png cannot be decoded"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(
    tmp_path: Path, spec: dict[str, object], kind: str, message: str
) -> None:
    picture(tmp_path / "a.png", 8, 8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    folder = tmp_path / str(spec.get("images", "."))
    source = ImageInputs.model_validate(spec | {"images": folder})
    with pytest.raises(InputError) as caught:
        images(source, model(x=kind))
    assert message in str(caught.value)
    assert str(caught.value).startswith("model 'net': ")


def test_pictures_for_two_inputs_are_refused() -> None:
    net = model(x="float[N,3,8,8]", y="float[N,3,8,8]")
    with pytest.raises(InputError, match=r"one input, this one has 2; use an \.npz file"):
        prepare_feeds(ImageInputs(images=PHOTOS), net, batch=1, seed=0)


def test_without_pillow_the_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'coinfer\[images\]'"):
        images(ImageInputs(images=PHOTOS), model(x="float[N,3,8,8]"))


# --- arrays -----------------------------------------------------------------------------------


def saved(path: Path, **arrays: np.ndarray) -> ArrayInputs:
    np.savez(path / "data.npz", **arrays)
    return ArrayInputs(npz=path / "data.npz")


def test_samples_are_cut_along_the_first_axis(tmp_path: Path) -> None:
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    y = np.arange(6, dtype=np.int64).reshape(6, 1)
    net = model(x="float[N,3]", y="int64[N,1]")
    feeds = prepare_feeds(saved(tmp_path, x=x, y=y), net, batch=4, seed=0)
    assert len(feeds) == 3
    rounds = np.concatenate([feed["x"] for feed in feeds])
    np.testing.assert_array_equal(rounds, np.concatenate([x, x]))
    np.testing.assert_array_equal(feeds[1]["y"][:, 0], [4, 5, 0, 1])


def test_a_model_without_a_batch_axis_gets_single_samples(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    feeds = prepare_feeds(saved(tmp_path, x=x), model(x="float[3]"), batch=1, seed=0)
    np.testing.assert_array_equal([feed["x"] for feed in feeds], x)


def test_numbers_stay_numbers_and_are_the_same_in_all_samples(tmp_path: Path) -> None:
    net = model(x="float[N,3]", k="int64", t="float")
    source = saved(tmp_path, x=np.ones((2, 3), np.float32), k=np.int64(7), t=np.float32([1, 2]))
    feeds = prepare_feeds(source, net, batch=1, seed=0)
    assert [(feed["k"].shape, feed["k"]) for feed in feeds] == [((), 7), ((), 7)]
    assert [(feed["t"].shape, feed["t"]) for feed in feeds] == [((), 1), ((), 2)]
    alone = saved(tmp_path, k=np.int64(7))
    assert prepare_feeds(alone, model(k="int64"), batch=1, seed=0) == [{"k": 7}]


def test_feeds_have_the_defaults_of_what_an_archive_leaves_out(tmp_path: Path) -> None:
    net = model_from_text(
        "g (float[N,3] x, float[3] shift = {1, 2, 3}) => (float[N,3] y) { y = Add(x, shift) }",
        name="net",
    )
    [feed] = prepare_feeds(saved(tmp_path, x=np.ones((1, 3), np.float32)), net, batch=1, seed=0)
    assert feed["shift"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("arrays", "batch", "message"),
    [
        ({"z": np.zeros((2, 3), np.float32)}, 1, "missing 'x'; unknown 'z'"),
        ({"x": np.zeros((2, 3), np.float64)}, 1, "takes float32 but got float64"),
        ({"x": np.zeros((2, 4), np.float32)}, 1, "takes shape [N,3] but got [1, 4]"),
        (
            {"x": np.zeros((0, 3), np.float32)},
            1,
            "must be equal for all arrays and not 0; it is x: 0",
        ),
        ({"x": np.float32(1)}, 1, "takes shape [N,3] but got []"),
        ({"x": np.zeros((2, 3), np.float32), "y": np.zeros(3)}, 1, "it is x: 2, y: 3"),
        ({}, 1, "it is none"),
        (
            {"x": np.array([{}])},
            1,
            "data.npz cannot be read as an .npz file: its array 'x' holds Python objects",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], batch: int, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepare_feeds(saved(tmp_path, **arrays), model(x="float[N,3]"), batch=batch, seed=0)
    assert message in str(caught.value)
    assert str(caught.value).startswith("model 'net': ")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_files_that_are_no_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.npz cannot be read as an \.npz file"):
        prepare_feeds(
            ArrayInputs(npz=tmp_path / "data.npz"), model(x="float[N,3]"), batch=1, seed=0
        )


def test_a_single_array_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"is not an \.npz file; write it with numpy\.savez"):
        prepare_feeds(
            ArrayInputs(npz=tmp_path / "data.npy"), model(x="float[N,3]"), batch=1, seed=0
        )


# --- noise ------------------------------------------------------------------------------------


def test_noise_is_standard_normal_and_differs_between_feeds() -> None:
    feeds = prepare_feeds(RandomInputs(), model(x="float[N,3,64,64]"), batch=2, seed=0)
    values = np.stack([feed["x"] for feed in feeds])
    assert values.shape == (8, 2, 3, 64, 64)
    # Six standard errors of the mean and of the standard deviation.
    assert abs(values.mean()) < 6 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 6 / np.sqrt(2 * values.size)
    assert len({feed["x"].tobytes() for feed in feeds}) == 8


def test_noise_follows_the_seed_and_the_models_name() -> None:
    def noise(seed: int, name: str) -> bytes:
        net = model(name, x="float[N,3]")
        return prepare_feeds(RandomInputs(random=1), net, batch=1, seed=seed)[0]["x"].tobytes()

    assert noise(1, "a") == noise(1, "a")
    assert len({noise(1, "a"), noise(2, "a"), noise(1, "b")}) == 3


def test_open_dimensions_of_noise_are_sized_by_the_scenario() -> None:
    net = model(x="int64[N,seq]")
    [feed] = prepare_feeds(RandomInputs(random=1, dims={"seq": 5}), net, batch=2, seed=0)
    assert feed["x"].shape == (2, 5)
    with pytest.raises(InputError, match="leaves the dimension 'seq' open"):
        prepare_feeds(RandomInputs(), net, batch=1, seed=0)


def test_batches_for_a_model_of_fixed_batch_are_refused() -> None:
    with pytest.raises(InputError, match="does not take batches of 2; set `batch`"):
        prepare_feeds(RandomInputs(), model(x="float[1,3]"), batch=2, seed=0)


def test_a_fixed_batch_of_the_right_size_is_taken() -> None:
    assert prepare_feeds(RandomInputs(), model(x="float[4,3]"), batch=4, seed=0)
