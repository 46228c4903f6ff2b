"""Training decomposed modules: accuracy comes back, and stopping changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from coinfer.errors import ConfigurationError, InputError

torch = pytest.importorskip("torch", reason="retraining needs torch")
pytest.importorskip("tensorly", reason="decomposing needs tensorly")

from coinfer.retraining import Epoch, Recipe, accuracy, decompose, train  # noqa: E402
from retraining.digits import batches, digits, network  # noqa: E402

pytestmark = pytest.mark.xdist_group("digits")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """Sums of several threads differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def teacher() -> Any:
    module = network()
    recipe = Recipe(epochs=6, learning_rate=3e-3)
    train(module, None, batches(0, 1000, shuffle=True), batches(1000, 1300), recipe=recipe)
    return module


def student_of(teacher: Any) -> Any:
    student = copy.deepcopy(teacher)
    decompose(student, digits()[0][:1], ranks="ratio:0.1")
    return student


def test_accuracy_falls_and_comes_back(teacher: Any) -> None:
    student, held_out = student_of(teacher), batches(1300, 1797)
    was, fallen = accuracy(teacher, held_out), accuracy(student, held_out)
    told: list[Epoch] = []
    found = train(
        student,
        teacher,
        batches(0, 1000, shuffle=True),
        batches(1000, 1300),
        recipe=Recipe(epochs=20, learning_rate=3e-3),
        progress=told.append,
    )
    regained = accuracy(student, held_out)
    assert was > 0.95
    assert fallen < was - 0.1
    assert regained > was - 0.02
    assert list(found.epochs) == told
    assert found.best.score == max(each.score for each in told)
    assert accuracy(student, batches(1000, 1300)) == found.best.score


def test_training_that_is_stopped_goes_on_as_if_it_had_not_been(
    teacher: Any, tmp_path: Path
) -> None:
    def run(student: Any, **how: Any) -> Any:
        data = batches(0, 320, shuffle=True)
        recipe = Recipe(epochs=4, seed=5)
        return train(student, teacher, data, batches(1000, 1100), recipe=recipe, **how)

    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    begun = student_of(teacher)
    straight, stopped, resumed = (copy.deepcopy(begun) for _ in range(3))
    file = tmp_path / "half.pt"
    expected = run(straight)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, checkpoint=file, progress=stop)
    told: list[Epoch] = []
    found = run(resumed, checkpoint=file, progress=told.append)
    assert found == expected
    assert [each.number for each in told] == [3, 4]
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    again = copy.deepcopy(begun)
    assert run(again, checkpoint=file) == expected, "what is done is not done again"
    assert torch.equal(again[0].weight, straight[0].weight)


def test_training_leaves_the_random_numbers_of_others_alone(teacher: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    recipe = Recipe(epochs=1)
    train(student_of(teacher), teacher, batches(0, 64), batches(1000, 1064), recipe=recipe)
    assert torch.equal(torch.rand(2), expected)


def test_what_does_not_get_better_ends_early_and_never_gets_worse(teacher: Any) -> None:
    student = copy.deepcopy(teacher)
    held_out = batches(1000, 1300)
    before = accuracy(student, held_out)
    recipe = Recipe(epochs=20, learning_rate=10.0, patience=2)
    found = train(student, None, batches(0, 128), held_out, recipe=recipe)
    assert found.stopped_early
    assert found.best == Epoch(0, 0.0, before)
    assert len(found.epochs) == 3
    assert accuracy(student, held_out) == before


def test_without_classes_the_teacher_is_enough(teacher: Any) -> None:
    student = student_of(teacher)
    images = digits()[0][:512]
    unlabelled = torch.utils.data.DataLoader(images, 64)
    recipe = Recipe(epochs=8, learning_rate=3e-3)
    found = train(student, teacher, unlabelled, batches(1000, 1300), recipe=recipe)
    assert found.best.score > found.epochs[0].score


def test_a_loss_and_a_score_of_ones_own(teacher: Any) -> None:
    def loss(student: Any, wanted: Any, target: Any, recipe: Recipe) -> Any:
        return torch.nn.functional.mse_loss(student, wanted)

    def score(module: Any, data: Any) -> float:
        with torch.no_grad():
            return -sum(float((module(x) - teacher(x)).square().sum()) for x, _ in data)

    found = train(
        student_of(teacher), teacher, batches(0, 320), batches(1000, 1100), loss=loss, score=score,
        recipe=Recipe(epochs=2),
    )  # fmt: skip
    assert found.best.score > found.epochs[0].score


def test_what_cannot_be_trained_is_said_in_a_line(teacher: Any, tmp_path: Path) -> None:
    held_out = batches(1000, 1064)
    frozen = copy.deepcopy(teacher).requires_grad_(False)
    with pytest.raises(ConfigurationError, match="no parameter needs a gradient"):
        train(frozen, teacher, batches(0, 64), held_out)
    with pytest.raises(InputError, match="no data to train with"):
        train(copy.deepcopy(teacher), teacher, [], held_out)
    with pytest.raises(InputError, match="no samples to judge by"):
        train(copy.deepcopy(teacher), teacher, batches(0, 64), [])
    broken = [(torch.full((1, 1, 8, 8), torch.nan), torch.zeros(1, dtype=torch.int64))]
    with pytest.raises(ConfigurationError, match="loss of epoch 1 is not finite"):
        train(copy.deepcopy(teacher), teacher, broken, held_out)
    with pytest.raises(ConfigurationError, match="nothing to learn from"):
        train(copy.deepcopy(teacher), None, [digits()[0][:4]], held_out)
    with pytest.raises(ConfigurationError, match="of the same shape"):
        train(copy.deepcopy(teacher), torch.nn.Flatten(), batches(0, 64), held_out)
    with pytest.raises(ConfigurationError, match="temperature 0 is out of range"):
        Recipe(temperature=0)


def test_a_checkpoint_of_something_else_is_refused(teacher: Any, tmp_path: Path) -> None:
    def run(module: Any, path: Path, **recipe: Any) -> None:
        how = Recipe(epochs=1, **recipe)
        train(module, None, batches(0, 64), batches(1000, 1064), recipe=how, checkpoint=path)

    file, other = tmp_path / "a.pt", tmp_path / "b.pt"
    run(student_of(teacher), file)
    with pytest.raises(ConfigurationError, match="another recipe"):
        run(student_of(teacher), file, seed=1)
    with pytest.raises(ConfigurationError, match="another module"):
        run(copy.deepcopy(teacher), file)
    whole = file.read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[:500], whole[:-200]):
        other.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=r"is damaged|no checkpoint"):
            run(student_of(teacher), other)
    torch.save({"weights": torch.zeros(2)}, other)
    with pytest.raises(ConfigurationError, match="no checkpoint of retraining"):
        run(student_of(teacher), other)
    torch.save(_Dangerous(), other)
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        run(student_of(teacher), other)
    assert not (tmp_path / "run").exists()


class _Dangerous:
    """Runs code where it is unpickled without care."""

    def __reduce__(self) -> Any:
        return (Path.mkdir, (Path("/nowhere/that/exists"),))


def test_the_loss_is_per_answer_however_many_there_are_in_a_sample() -> None:
    """A map of classes is so many answers: the share of both terms must not depend on its size."""
    from coinfer.retraining.loss import distillation_loss

    torch.manual_seed(0)
    student, teacher = torch.randn(4, 10), torch.randn(4, 10)
    recipe = Recipe()
    plain = distillation_loss(student, teacher, None, recipe)
    maps = [each[:, :, None, None].expand(4, 10, 5, 7).clone() for each in (student, teacher)]
    assert distillation_loss(*maps, None, recipe) == pytest.approx(float(plain), rel=1e-5)


class _Two(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(4, 3)

    def forward(self, one: Any, other: Any) -> Any:
        return self.dense(one + other)


def test_batches_come_in_what_forms_loaders_give() -> None:
    torch.manual_seed(1)
    x, classes, teacher = torch.randn(8, 4), torch.randint(3, (8,)), torch.nn.Linear(4, 3)
    recipe, held_out = Recipe(epochs=1), [(x, classes)]
    weights = []
    for batch in (x, (x,), [x], (x, None), [x, None]):
        student = torch.nn.Linear(4, 3)
        with torch.no_grad():
            student.weight.fill_(0.1)
            student.bias.fill_(0.0)
        train(student, teacher, [batch], held_out, recipe=recipe)
        weights.append(student.weight.detach().clone())
    for weight in weights[1:]:
        assert torch.equal(weight, weights[0])
    pair = (((x, x), None), ((x, x), classes))
    train(_Two(), _Two(), pair, [((x, x), classes)], recipe=recipe)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"x": torch.zeros(2, 4)}, r"inputs must be a tensor .*, got dict; wrap the data"),
        ((torch.zeros(2, 4),) * 3, "a batch has 3 members; give .inputs, target."),
        ((torch.zeros(2, 4), [1, 2]), "its target is list and no tensor"),
    ],
)
def test_batches_in_other_forms_are_refused_in_a_line(batch: Any, said: str) -> None:
    module = torch.nn.Linear(4, 3)
    held_out = [(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(InputError, match=said) as caught:
        train(module, torch.nn.Linear(4, 3), [batch], held_out, recipe=Recipe(epochs=1))
    assert "\n" not in str(caught.value)
