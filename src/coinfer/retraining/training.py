"""Training: bring a decomposed module back to what its original answers. Decomposes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from coinfer.errors import ConfigurationError, InputError
from coinfer.retraining.accuracy import accuracy
from coinfer.retraining.checkpoint import read_checkpoint, write_checkpoint
from coinfer.retraining.library import torch
from coinfer.retraining.loss import distillation_loss
from coinfer.retraining.module_layers import as_arguments, evaluating
from coinfer.retraining.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["Epoch", "Training", "train"]

_DEFAULT_RECIPE = Recipe()


class Epoch(NamedTuple):
    """One pass over the data.

    Attributes:
        number: From 1; 0 is what there was before training.
        loss: Mean over the batches; 0 of number 0.
        score: On the validation data, larger is better.
    """

    number: int
    loss: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What came of training; the module has the weights of the best epoch.

    Attributes:
        epochs: All, in order, from number 0.
        best: That of the best score, the first of equal ones.
        stopped_early: Whether patience ended it.
    """

    epochs: tuple[Epoch, ...]
    best: Epoch
    stopped_early: bool


def train(
    module: Module,
    teacher: Module | None,
    data: Iterable[Any],
    validation: Iterable[Any],
    *,
    recipe: Recipe = _DEFAULT_RECIPE,
    loss: Callable[[Any, Any, Any, Recipe], Tensor] = distillation_loss,
    score: Callable[[Module, Iterable[Any]], float] = accuracy,
    progress: Callable[[Epoch], None] = lambda _: None,
    checkpoint: str | Path | None = None,
) -> Training:
    """Train a module in place to answer as its teacher does; keep the best of all epochs.

    It is never worse on the validation data than it was. Equal seeds, data and threads give equal
    weights on a CPU; where training stopped and goes on from its checkpoint, too, as far as the
    data's own random numbers are torch's.

    Args:
        module: The student; only parameters that need gradients change.
        teacher: The original, which is only evaluated; None: train on the classes alone.
        data: Batches of (inputs, target), (inputs,) or inputs alone, e.g. a `DataLoader`; it is
            gone through once per epoch. Several inputs are a tuple in that place, and without a
            target ((first, second), None): two tensors are taken for inputs and target.
        validation: What judges; none of the data.
        recipe: How.
        loss: Of (student's outputs, teacher's outputs, target or None, recipe).
        score: Of (module, validation); larger is better.
        progress: Is told of each epoch.
        checkpoint: A file that is written after each epoch; if it is there, training goes on from
            it.

    Raises:
        ConfigurationError: torch is not installed, the checkpoint is of something else or damaged,
            nothing can be trained, or the loss is not finite.
        InputError: there is no data, or a batch is none of these.
        OSError: the checkpoint cannot be written.
    """
    path = None if checkpoint is None else Path(checkpoint)
    with _own_randomness(recipe.seed):
        trainer = _Trainer(module, teacher, recipe, loss, data)
        if not trainer.resumed(path):
            trainer.judged(Epoch(0, 0.0, score(module, validation)))
            progress(trainer.epochs[0])
        while not trainer.is_done:
            mean = trainer.epoch()
            trainer.judged(Epoch(len(trainer.epochs), mean, score(module, validation)))
            if path is not None:
                write_checkpoint(path, trainer.state())
            progress(trainer.epochs[-1])
    return trainer.result()


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    with torch().random.fork_rng(devices=[]):
        torch().manual_seed(seed)
        yield


@dataclass(slots=True)
class _Trainer:
    """Training as it stands.

    Attributes:
        module: The student.
        teacher: The original, if there is one.
        recipe: How.
        loss: Of one batch.
        data: Batches.
        epochs: Those done.
        best: Weights and buffers of the best epoch.
    """

    module: Module
    teacher: Module | None
    recipe: Recipe
    loss: Callable[[Any, Any, Any, Recipe], Tensor]
    data: Iterable[Any]
    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    optimizer: Any = field(init=False)
    schedule: Any = field(init=False)

    def __post_init__(self) -> None:
        """Make the optimizer.

        Raises:
            ConfigurationError: nothing can be trained.
        """
        parameters = [each for each in self.module.parameters() if each.requires_grad]
        if not parameters:
            raise ConfigurationError("nothing can be trained: no parameter needs a gradient")
        optim, recipe = torch().optim, self.recipe
        self.optimizer = optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.schedule = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, recipe.epochs)

    @property
    def best_epoch(self) -> Epoch:
        """The first of those with the best score."""
        return max(self.epochs, key=lambda each: each.score)

    @property
    def is_patient(self) -> bool:
        """Whether a better score is still waited for."""
        return self.epochs[-1].number - self.best_epoch.number < self.recipe.patience

    @property
    def is_done(self) -> bool:
        """Whether there is no further epoch."""
        return self.epochs[-1].number >= self.recipe.epochs or not self.is_patient

    def judged(self, epoch: Epoch) -> None:
        """Take note of a score, and of the weights if it is the best."""
        if epoch.score != epoch.score:
            raise ConfigurationError(f"the score of epoch {epoch.number} is not a number")
        self.epochs.append(epoch)
        if self.best_epoch is epoch:
            self.best = deepcopy(self.module.state_dict())

    def epoch(self) -> float:
        """Go through the data once; return the mean loss."""
        self.module.train()
        device = next(self.module.parameters()).device
        total, count = 0.0, 0
        for batch in self.data:
            inputs, target = _unpacked(batch, device)
            wanted = None
            if self.teacher is not None:
                with evaluating(self.teacher):
                    wanted = self.teacher(*inputs)
            self.optimizer.zero_grad()
            found = self.loss(self.module(*inputs), wanted, target, self.recipe)
            total, count = total + float(found.detach()), count + 1
            if not abs(total) < float("inf"):
                raise ConfigurationError(
                    f"the loss of epoch {len(self.epochs)} is not finite; give a lower "
                    f"learning_rate than {self.recipe.learning_rate:g}"
                )
            found.backward()
            self.optimizer.step()
        if not count:
            raise InputError("there is no data to train with")
        self.schedule.step()
        return total / count

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        generator = getattr(self.data, "generator", None)
        return {
            "recipe": self.recipe.to_json(),
            "module": self.module.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epochs": [tuple(each) for each in self.epochs],
            "random": torch().get_rng_state(),
            "data_random": None if generator is None else generator.get_state(),
        }

    def resumed(self, path: Path | None) -> bool:
        """Go on from a checkpoint, if there is one.

        Raises:
            ConfigurationError: it is of another recipe or module.
        """
        state = None if path is None else read_checkpoint(path)
        if state is None:
            return False
        if state["recipe"] != self.recipe.to_json():
            raise ConfigurationError(
                f"{path} is of another recipe, {state['recipe']}; give that one, or another file"
            )
        try:
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"{path} is of another module: {str(error).splitlines()[-1].strip()}; give "
                "another file"
            ) from error
        self.schedule.load_state_dict(state["schedule"])
        self.epochs = [Epoch(*each) for each in state["epochs"]]
        self.best = state["best"]
        torch().set_rng_state(state["random"])
        if state["data_random"] is not None and hasattr(self.data, "generator"):
            self.data.generator.set_state(state["data_random"])
        return True

    def result(self) -> Training:
        """Give the module its best weights, and say what came of it."""
        self.module.load_state_dict(self.best)
        return Training(
            epochs=tuple(self.epochs),
            best=self.best_epoch,
            stopped_early=self.epochs[-1].number < self.recipe.epochs,
        )


def _unpacked(batch: Any, device: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return inputs and target of a batch, where the module is.

    Raises:
        InputError: it is neither inputs nor (inputs, target).
    """
    inputs, target = batch, None
    if isinstance(batch, tuple | list):
        if len(batch) not in (1, 2):
            raise InputError(
                f"a batch has {len(batch)} members; give (inputs, target), with several inputs as "
                "a tuple of their own, and None as the target if there is none"
            )
        inputs, target = batch if len(batch) == 2 else (batch[0], None)
    if target is not None and not isinstance(target, torch().Tensor):
        raise InputError(
            f"a batch of two is (inputs, target), and its target is {type(target).__name__} and "
            "no tensor; give None if there is none"
        )
    arguments = tuple(each.to(device) for each in as_arguments(inputs))
    return arguments, None if target is None else target.to(device)
