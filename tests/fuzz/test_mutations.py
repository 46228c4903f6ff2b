"""A case is the same whenever it is made, and different from its seed."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest

from coinfer.testing.models import two_convs
from fuzz.byte_mutation import mutate_bytes
from fuzz.kinds import KINDS, make_case
from fuzz.message_mutation import mutate_message
from fuzz.seeds import make_seeds
from fuzz.tree_mutation import mutate_tree

TREE = {"models": {"a": {"deadline": "1s"}}, "sizes": [1, 2, 3]}


def _mutated_model(seed: int) -> bytes:
    proto = onnx.load_from_string(two_convs().model.to_bytes())
    mutate_message(proto, random.Random(seed), [proto])
    return proto.SerializePartialToString(deterministic=True)


def test_messages_are_mutated_the_same_way_every_time_and_in_many_ways() -> None:
    made = [_mutated_model(seed) for seed in range(60)]
    assert made == [_mutated_model(seed) for seed in range(60)]
    assert len(set(made)) > 50


def test_messages_in_maps_are_mutated_too() -> None:
    from coinfer.server.messages import INFERENCE

    made = INFERENCE["ModelInferRequest"]
    sound = made()
    sound.parameters["timeout"].int64_param = 5
    before = sound.SerializeToString(deterministic=True)
    changed = [made.FromString(before) for _ in range(20)]
    for seed, message in enumerate(changed):
        mutate_message(message, random.Random(seed), [message])
    texts = {message.SerializePartialToString(deterministic=True) for message in changed}
    assert len(texts - {before}) > 5


def test_trees_and_bytes_are_mutated_and_the_seed_is_left_alone() -> None:
    before = repr(TREE)
    trees = [repr(mutate_tree(TREE, random.Random(seed), ["x"])) for seed in range(60)]
    assert repr(TREE) == before
    assert len(set(trees)) > 40
    assert len({mutate_bytes(b"abcdefgh", random.Random(seed)) for seed in range(60)}) > 40


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    make_seeds(folder)
    return folder


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_case_is_found_again_by_its_kind_and_seed(kind: str, seeds: Path, tmp_path: Path) -> None:
    for seed in ("1-1", "1-2", "1-3"):
        first, second = (make_case(kind, seed, seeds, tmp_path / name) for name in "ab")
        assert first.arguments == second.arguments
        assert _content(first.folder) == _content(second.folder)


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
