from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.errors import ConfigurationError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span


def measured(*seconds: float) -> Measurement:
    return Measurement(seconds=seconds)


@pytest.fixture
def batches() -> Profile:
    return Profile(
        {ProfileKey("m", "cpu0", b): measured(s) for b, s in {2: 0.02, 4: 0.03, 8: 0.07}.items()}
    )


class TestMeasurement:
    def test_mean_and_quantiles(self) -> None:
        times = measured(0.4, 0.1, 0.2, 0.3)
        assert times.mean_s == pytest.approx(0.25)
        assert times.median_s == pytest.approx(0.25)
        assert times.quantile_s(0.0) == 0.1
        assert times.quantile_s(1.0) == 0.4
        assert times.quantile_s(0.9) == pytest.approx(0.37)
        assert measured(0.5).quantile_s(0.99) == 0.5

    @pytest.mark.parametrize("seconds", [(), (-0.1,), (math.nan,), (0.1, math.inf), (1e-320,)])
    def test_impossible_times_are_refused(self, seconds: tuple[float, ...]) -> None:
        with pytest.raises(ConfigurationError, match="0 or from 1e-100 to 1e"):
            Measurement(seconds=seconds)

    @given(st.lists(st.just(0.0) | st.floats(1e-12, 1e3), min_size=1), st.floats(0, 1))
    def test_a_quantile_lies_within_the_data(self, seconds: list[float], q: float) -> None:
        value = measured(*seconds).quantile_s(q)
        assert min(seconds) <= value <= max(seconds) * (1 + 1e-12)


class TestExpected:
    @pytest.mark.parametrize(
        ("batch", "seconds"),
        [(2, 0.02), (4, 0.03), (3, 0.025), (6, 0.05), (1, 0.01), (16, 0.14), (8, 0.07)],
    )
    def test_it_is_linear_between_batches_and_proportional_outside(
        self, batches: Profile, batch: int, seconds: float
    ) -> None:
        assert batches.expected_s("m", "cpu0", batch=batch) == pytest.approx(seconds)

    def test_what_was_not_measured_cannot_be_run(self, batches: Profile) -> None:
        assert batches.expected_s("m", "gpu") is None
        assert batches.expected_s("other", "cpu0") is None
        assert batches.expected_s("m", "cpu0", span=Span(0, 1)) is None


class TestSelection:
    def test_names_are_in_order_of_appearance(self) -> None:
        both = Profile.from_seconds({"b": {"y": 1.0, "x": 1.0}, "a": {"x": 2.0}})
        assert both.models() == ("b", "a")
        assert both.processors() == ("y", "x")
        assert both.restricted(["a"]).models() == ("a",)

    def test_merging_prefers_the_newer(self) -> None:
        old = Profile.from_seconds({"a": {"x": 1.0, "y": 1.0}})
        new = Profile.from_seconds({"a": {"x": 2.0}, "b": {"x": 3.0}})
        merged = old.merged(new)
        assert merged.expected_s("a", "x") == 2.0
        assert merged.expected_s("a", "y") == 1.0
        assert merged.expected_s("b", "x") == 3.0
        assert old.expected_s("a", "x") == 1.0


class TestFile:
    def test_what_is_saved_is_loaded(self, tmp_path: Path) -> None:
        profile = Profile(
            {
                ProfileKey("a", "cpu0", 2, Span(1, 3)): Measurement(
                    seconds=(0.1, 0.2), load_s=1.5, resident_bytes=7, run_bytes=8, error=1e-4
                ),
                ProfileKey("ä/b", "gpu"): measured(0.0),
            }
        )
        path = tmp_path / "new" / "profile.json"
        profile.save(path)
        assert Profile.load(path) == profile
        assert [p.name for p in path.parent.iterdir()] == ["profile.json"]

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "3", '{"format": "other/1", "entries": []}', "\N{NULL}"],
    )
    def test_a_file_that_is_no_profile_is_named(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "profile.json"
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"profile"):
            Profile.load(path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"missing\.json"):
            Profile.load(tmp_path / "missing.json")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("batch", 0),
            ("batch", "two"),
            ("span", [0]),
            ("span", [3, 1]),
            ("span", [-1, 1]),
            ("span", None),
            ("seconds", []),
            ("seconds", [-1]),
            ("seconds", ["fast"]),
            ("load_s", None),
        ],
    )
    def test_a_damaged_row_is_refused(self, field: str, value: object) -> None:
        data = json.loads(json.dumps(Profile.from_seconds({"m": {"cpu0": 0.1}}).to_json()))
        data["entries"][0][field] = value
        with pytest.raises(ConfigurationError):
            Profile.from_json(data)
        del data["entries"][0][field]
        with pytest.raises(ConfigurationError, match="damaged profile"):
            Profile.from_json(data)
