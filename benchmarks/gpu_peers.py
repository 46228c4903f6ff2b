"""Other ways to run networks on one GPU with torch, as a program would that has no coinfer.

Each answers a round: one request of each network, from arrays on the host to arrays on the host.
Nothing here uses coinfer's engine or sessions; the translation to torch functions is the same, so
that schedules are compared and not translations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from coinfer.backends.torch.network import Network
from coinfer.backends.torch.program import Program
from coinfer.model import Model

__all__ = ["PEERS", "GraphsOnStreams", "Peer", "UrgentGraph", "translated"]

Feed = Mapping[str, np.ndarray]


def translated(models: Sequence[Model], device: torch.device) -> list[Program]:
    """Translate networks for a device, in full single precision."""
    return [
        Program.of(model, compute=torch.float32, device=device, what=model.name) for model in models
    ]


class Peer:
    """A way to run networks.

    Args:
        models: The networks.
        device: A `torch.device`.
        programs: Their translations, made by `translated`; peers share them.
    """

    needs_gpu = False

    def __init__(
        self, models: Sequence[Model], device: torch.device, programs: Sequence[Program]
    ) -> None:
        self.device = device
        self.names = [[spec.name for spec in model.inputs] for model in models]
        self.outputs = [[spec.name for spec in model.outputs] for model in models]
        self.programs = programs

    def round(self, feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
        """Answer one request of each network."""
        raise NotImplementedError

    def _given(self, at: int, feed: Feed) -> list[Any]:
        return [torch.from_numpy(feed[name]) for name in self.names[at]]

    def _answers(self, made: Sequence[Sequence[Any]]) -> list[dict[str, np.ndarray]]:
        return [
            {name: each.cpu().numpy() for name, each in zip(names, values, strict=True)}
            for names, values in zip(self.outputs, made, strict=True)
        ]


class InSequence(Peer):
    """One network after the other, each answered before the next begins."""

    def round(self, feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
        answers = []
        with torch.inference_mode():
            for at, (program, feed) in enumerate(zip(self.programs, feeds, strict=True)):
                made = program.run([x.to(self.device) for x in self._given(at, feed)])
                names = self.outputs[at]
                answers.append({n: m.cpu().numpy() for n, m in zip(names, made, strict=True)})
        return answers


class AStreamEach(Peer):
    """All networks are launched, each on a stream of its own, and waited for at the end."""

    needs_gpu = True

    def __init__(
        self, models: Sequence[Model], device: torch.device, programs: Sequence[Program]
    ) -> None:
        super().__init__(models, device, programs)
        self.streams = [torch.cuda.Stream(device) for _ in models]

    def round(self, feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
        made = []
        with torch.inference_mode():
            for at, feed in enumerate(feeds):
                with torch.cuda.stream(self.streams[at]):
                    given = [x.pin_memory() for x in self._given(at, feed)]
                    inputs = [x.to(self.device, non_blocking=True) for x in given]
                    made.append(self.programs[at].run(inputs))
        torch.cuda.synchronize(self.device)
        return self._answers(made)


class Graphs(Peer):
    """A CUDA graph per network, recorded by hand, replayed one after the other."""

    needs_gpu = True
    on_streams = False
    priority = 0

    def __init__(
        self, models: Sequence[Model], device: torch.device, programs: Sequence[Program]
    ) -> None:
        super().__init__(models, device, programs)
        self.streams = [torch.cuda.Stream(device, priority=self.priority) for _ in models]
        self.recorded: list[tuple[list[Any], list[Any], Any, list[Any]]] = []

    def _record(self, feeds: Sequence[Feed]) -> None:
        for at, feed in enumerate(feeds):
            given = [x.pin_memory() for x in self._given(at, feed)]
            inputs = [x.to(self.device) for x in given]
            self.programs[at].run(inputs)
            torch.cuda.synchronize(self.device)
            graph = torch.cuda.CUDAGraph()
            # What is recorded keeps the priority of the stream that it is recorded on.
            with torch.cuda.graph(graph, stream=self.streams[at] if self.on_streams else None):
                outputs = self.programs[at].run(inputs)
            self.recorded.append((given, inputs, graph, outputs))

    def round(self, feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
        with torch.inference_mode():
            if not self.recorded:
                self._record(feeds)
            for at, (given, inputs, graph, _) in enumerate(self.recorded):
                stream = torch.cuda.stream(self.streams[at])
                with stream if self.on_streams else contextlib.nullcontext():
                    for x, staged, target in zip(
                        self._given(at, feeds[at]), given, inputs, strict=True
                    ):
                        staged.copy_(x)
                        target.copy_(staged, non_blocking=True)
                    graph.replay()
            torch.cuda.synchronize(self.device)
            return self._answers([outputs for *_, outputs in self.recorded])


class GraphsOnStreams(Graphs):
    """A CUDA graph per network, each on a stream of its own."""

    on_streams = True


class UrgentGraph(GraphsOnStreams):
    """A CUDA graph on a stream of high priority."""

    priority = -1


class Vmapped(Peer):
    """`torch.func.vmap` over the stacked weights; of networks whose weights are all in layers."""

    def __init__(
        self, models: Sequence[Model], device: torch.device, programs: Sequence[Program]
    ) -> None:
        super().__init__(models, device, programs)
        networks = [Network(model, device, model.name) for model in models]
        if _untrained(networks[0]):
            raise ValueError("it has weights outside of layers, which vmap would share")
        self.weights = torch.func.stack_module_state(networks)
        self.base = networks[0]

    def round(self, feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
        columns = zip(*(self._given(at, feed) for at, feed in enumerate(feeds)), strict=True)
        stacked = [torch.stack(column).to(self.device) for column in columns]
        with torch.no_grad():
            made = torch.func.vmap(self._one)(*self.weights, *stacked)
        values = made if isinstance(made, tuple) else (made,)
        return self._answers([[value[at] for value in values] for at in range(len(feeds))])

    def _one(self, parameters: Any, buffers: Any, *inputs: Any) -> Any:
        return torch.func.functional_call(self.base, (parameters, buffers), inputs)


def _untrained(network: Network) -> list[Any]:
    """Tensors of several numbers that are in no layer."""
    slots = network.program.slots
    return [x for x in slots if isinstance(x, torch.Tensor) and x.numel() > 1]


PEERS: Mapping[str, type[Peer]] = {
    "in sequence": InSequence,
    "a stream each": AStreamEach,
    "graphs": Graphs,
    "graphs on streams": GraphsOnStreams,
    "vmap": Vmapped,
}
