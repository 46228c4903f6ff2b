"""BackendSuite: what every backend must do, as tests to inherit. Needs pytest; knows no backend."""

# ruff: noqa: D102  (the name of a test is its sentence)

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from coinfer.backends.base import Backend, Session, caller_cores
from coinfer.backends.values import run_part, to_host
from coinfer.errors import BackendError, ExecutionError
from coinfer.graph.extract import extract
from coinfer.graph.partition import partition_at
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.testing.models import (
    Example,
    examples,
    fixed_batch,
    int_gather,
    tiny_linear,
    two_convs,
    unsupported,
)

__all__ = ["BackendSuite"]

_Arrays = Mapping[str, npt.NDArray[Any]]


class BackendSuite:
    """The contract of `Backend` and `Session`.

    Subclass it in a test file, with a name that pytest collects, and give `backend` and
    `processor`.

    Attributes:
        computes: False for a backend that returns zeros; what it would compute is then not tested.
        tolerance: Largest ||out - ref|| / ||ref||. The default leaves room for sums of some ten
            float32 products in another order.
    """

    computes = True
    tolerance = 1e-6

    def backend(self) -> Backend:
        """Return the backend under test."""
        raise NotImplementedError

    def processor(self) -> Processor:
        """Return a 1-thread processor of it in fp32."""
        raise NotImplementedError

    def loaded(self, model: Model) -> closing[Session]:
        """Load a model on the processor; as a context manager, close it at the end."""
        return closing(self.backend().load(model, self.processor()))

    def check(self, example: Example, inputs: _Arrays, outputs: _Arrays) -> None:
        """Compare names, shapes, dtypes and, if the backend computes, values."""
        expected = example.reference(inputs)
        assert set(outputs) == set(expected)
        for name, reference in expected.items():
            assert outputs[name].shape == reference.shape
            assert outputs[name].dtype == reference.dtype
            if self.computes:
                error = np.linalg.norm(outputs[name] - reference) / np.linalg.norm(reference)
                assert error <= self.tolerance, f"{example.model.name}.{name}: error {error:.2g}"

    @pytest.mark.parametrize("example", examples(), ids=lambda e: e.model.name)
    @pytest.mark.parametrize("batch", [1, 2, 3])
    def test_outputs_equal_the_reference_at_every_batch_size(
        self, example: Example, batch: int
    ) -> None:
        inputs = example.model.sample_inputs(batch=batch, seed=batch)
        with self.loaded(example.model) as session:
            self.check(example, inputs, session.run(inputs))

    def test_the_caller_has_some_of_the_cores_of_a_wide_processor(self) -> None:
        wide = dataclasses.replace(self.processor(), threads=2, cores=(4, 6))
        left = caller_cores(self.backend(), wide)
        assert left
        assert set(left) <= {4, 6}

    def test_batch_sizes_may_alternate_in_one_session(self) -> None:
        example = tiny_linear()
        with self.loaded(example.model) as session:
            for batch in (3, 1, 2, 3, 1):
                inputs = example.model.sample_inputs(batch=batch, seed=batch)
                self.check(example, inputs, session.run(inputs))

    def test_the_order_of_inputs_does_not_matter(self) -> None:
        example = next(e for e in examples() if len(e.model.inputs) > 1)
        inputs = example.model.sample_inputs(seed=1)
        with self.loaded(example.model) as session:
            outputs = session.run(dict(reversed(inputs.items())))
            self.check(example, inputs, outputs)

    def test_read_only_and_strided_inputs_are_taken_as_they_are(self) -> None:
        example = fixed_batch()
        array = np.asfortranarray(example.model.sample_inputs(seed=2)["x"])
        array.flags.writeable = False
        with self.loaded(example.model) as session:
            self.check(example, {"x": array}, session.run({"x": array}))

    @pytest.mark.parametrize("character", ["l", "q"])
    def test_integers_of_either_character_of_their_type_are_taken(self, character: str) -> None:
        # numpy has two types of 64 bits and calls them equal; libraries give one or the other.
        example = int_gather()
        ids = np.array([[1, 2, 3]], character)
        if ids.dtype != np.int64:
            pytest.skip("it has 32 bits on this system")
        with self.loaded(example.model) as session:
            self.check(example, {"ids": ids}, session.run({"ids": ids}))

    def test_concurrent_runs_do_not_mix_their_data(self) -> None:
        example = tiny_linear()
        feeds = [example.model.sample_inputs(batch=1 + i % 3, seed=i) for i in range(40)]
        with self.loaded(example.model) as session, ThreadPoolExecutor(4) as pool:
            for inputs, outputs in zip(feeds, pool.map(session.run, feeds), strict=True):
                self.check(example, inputs, outputs)

    @pytest.mark.parametrize("cut", [1, 2])
    def test_parts_hand_values_on_and_compute_what_the_whole_model_does(self, cut: int) -> None:
        example = two_convs()
        everything = {"it": frozenset(range(3))}
        partition = partition_at(example.model, [cut], everything)
        first, second = (extract(example.model, partition, Span(at, at)) for at in range(2))
        with self.loaded(first) as one, self.loaded(second) as other:
            for batch in (1, 3):
                inputs = example.model.sample_inputs(batch=batch, seed=batch)
                self.check(example, inputs, other.run(one.run(inputs)))
                handed_on = run_part(other, run_part(one, inputs))
                self.check(example, inputs, to_host(handed_on))
                # Neither need know what the other can read.
                self.check(example, inputs, other.run(to_host(run_part(one, inputs))))
                self.check(example, inputs, to_host(run_part(other, one.run(inputs))))

    def test_outputs_survive_the_next_run_and_the_session(self) -> None:
        example = tiny_linear()
        first, second = (example.model.sample_inputs(seed=seed) for seed in (3, 4))
        with self.loaded(example.model) as session:
            outputs = session.run(first)
            session.run(second)
        self.check(example, first, outputs)

    def test_outputs_are_contiguous(self) -> None:
        for example in examples():
            with self.loaded(example.model) as session:
                outputs = session.run(example.model.sample_inputs(batch=2))
            assert all(array.flags.c_contiguous for array in outputs.values())

    def test_run_leaves_its_inputs_alone(self) -> None:
        example = tiny_linear()
        inputs = example.model.sample_inputs(seed=5)
        before = inputs["x"].copy()
        with self.loaded(example.model) as session:
            session.run(inputs)
        assert np.array_equal(inputs["x"], before)

    def test_a_session_may_be_closed_twice(self) -> None:
        session = self.backend().load(tiny_linear().model, self.processor())
        session.close()
        session.close()

    def test_a_closed_session_refuses_to_run(self) -> None:
        example = tiny_linear()
        session = self.backend().load(example.model, self.processor())
        session.close()
        with pytest.raises(ExecutionError, match=example.model.name):
            session.run(example.model.sample_inputs())

    def test_an_unsupported_model_is_refused_with_its_name_and_the_processors(self) -> None:
        if not self.computes:
            pytest.skip("a backend that computes nothing supports every model")
        with pytest.raises(BackendError) as caught:
            self.backend().load(unsupported(), self.processor())
        assert "'unsupported'" in str(caught.value)
        assert repr(self.processor().name) in str(caught.value)

    def test_it_supports_the_operators_of_the_models_that_it_runs_or_cannot_tell(self) -> None:
        for example in examples():
            graph = example.model.graph.graph
            first = {next(v.name for v in node.outputs if v.name) for node in graph}
            found = self.backend().supported(example.model, self.processor())
            assert found is None or found == first

    def test_it_does_not_support_an_operator_that_it_does_not_have(self) -> None:
        if not self.computes:
            pytest.skip("a backend that computes nothing supports every model")
        assert not self.backend().supported(unsupported(), self.processor())

    def test_placement_tells_what_the_processor_asked_for(self) -> None:
        with self.loaded(tiny_linear().model) as session:
            placement = session.placement()
        device = self.processor().device.partition(":")[0].lower()
        assert sum(placement.operators.values()) >= 1
        assert all(name.lower().startswith(device) for name in placement.operators)
        assert placement.precision == self.processor().precision
        assert placement.threads == self.processor().threads

    def test_twenty_sessions_of_one_thread_make_no_pools(self) -> None:
        process = psutil.Process()
        warm = tiny_linear()
        with self.loaded(warm.model) as session:
            session.run(warm.model.sample_inputs())
            before = process.num_threads()
        models = [tiny_linear(f"tiny_{i}").model for i in range(20)]
        sessions = [self.backend().load(model, self.processor()) for model in models]
        for session, model in zip(sessions, models, strict=True):
            session.run(model.sample_inputs())
        during = process.num_threads()
        for session in sessions:
            session.close()
        assert during <= before + 2

    def test_equal_processors_share_a_session(self) -> None:
        backend = self.backend()
        key = backend.sharing_key(self.processor())
        assert key == backend.sharing_key(self.processor())
        assert hash(key) == hash(backend.sharing_key(self.processor()))

    def test_the_processors_device_is_among_those_reported(self) -> None:
        devices = {device.name: device for device in self.backend().devices()}
        assert self.processor().precision in devices[self.processor().device].precisions

    def test_versions_are_texts(self) -> None:
        for library, version in self.backend().versions().items():
            assert isinstance(library, str)
            assert isinstance(version, str)
