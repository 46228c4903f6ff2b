"""Cases about the server: health, metadata, index, statistics, and what its extensions promise."""

from __future__ import annotations

from typing import Any

from coinfer.testing.oip.infer import Infer, infer
from coinfer.testing.oip.target import NOBODY, Target, expect_error
from coinfer.testing.oip.verdict import expect, fail, not_offered

__all__ = ["MODEL_CASES", "SERVER_CASES"]


def server_is_live_and_ready(target: Target) -> None:
    """Both answer 200."""
    for word in ("live", "ready"):
        answer = target.http.get(f"/v2/health/{word}")
        expect(answer.status == 200, f"{answer.asked}: status {answer.status}")


def server_says_what_it_is(target: Target) -> None:
    """Name, version and extensions are texts."""
    said = target.http.get("/v2").object()
    for word in ("name", "version"):
        expect(isinstance(said.get(word), str) and said[word] != "", f"{word} is {said.get(word)}")
    extensions = said.get("extensions")
    expect(
        isinstance(extensions, list) and all(isinstance(each, str) for each in extensions),
        f"extensions are {extensions!r}, no list of texts",
    )


def unknown_model_is_not_found(target: Target) -> None:
    """Metadata, configuration, statistics and inference of a model that does not exist are 404."""
    path = f"/v2/models/{NOBODY}"
    expect_error(target.http.get(path), 404)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    expect_error(target.http.post(f"{path}/infer", {"inputs": [tensor]}), 404)
    ready = target.http.get(f"{path}/ready")
    expect(ready.status in (400, 404), f"{ready.asked}: status {ready.status}, not 404")
    for extension, word in (("model_configuration", "config"), ("statistics", "stats")):
        if target.offers(extension):
            expect_error(target.http.get(f"{path}/{word}"), 404)


def unknown_paths_are_refused(target: Target) -> None:
    """A path that is none is 404, a method that a path does not have 404 or 405."""
    answer = target.http.get("/v2/no/such/path")
    expect(answer.status == 404, f"{answer.asked}: status {answer.status}, not 404")
    answer = target.http.ask("DELETE", "/v2/health/live")
    expect(answer.status in (404, 405), f"{answer.asked}: status {answer.status}, not 405")


def extensions_are_what_answers(target: Target) -> None:
    """What the extensions name answers 200, and what they do not name refuses."""
    if not target.model:
        not_offered("no model is known")
    asked = {
        "statistics": ("GET", f"{target.path}/stats"),
        "model_configuration": ("GET", f"{target.path}/config"),
        "model_repository": ("POST", "/v2/repository/index"),
        "system_shared_memory": ("GET", "/v2/systemsharedmemory/status"),
        "cuda_shared_memory": ("GET", "/v2/cudasharedmemory/status"),
        "trace": ("GET", "/v2/trace/setting"),
        "logging": ("GET", "/v2/logging"),
    }
    for extension, (method, path) in asked.items():
        answer = target.http.ask(method, path, b"{}" if method == "POST" else None)
        is_there = answer.status == 200
        # An index alone is no offer: the extension is about loading and unloading.
        is_free = extension == "model_repository" and not target.offers(extension)
        if is_there != target.offers(extension) and not is_free:
            says = "offers" if target.offers(extension) else "does not offer"
            fail(f"the server {says} {extension}, and {answer.asked} is {answer.status}")


def index_lists_the_models(target: Target) -> None:
    """The repository's index has name, version and state of each model."""
    target.needs("model_repository")
    for body in ({}, {"ready": True}):
        answer = target.http.post("/v2/repository/index", body)
        expect(answer.status == 200, f"{answer.asked}: status {answer.status}")
        found = answer.json()
        expect(isinstance(found, list), "the index is no list")
        for each in found:
            expect(isinstance(each, dict) and isinstance(each.get("name"), str), f"{each!r}")
            if body:
                expect(each.get("state", "READY") == "READY", f"asked for ready ones, got {each!r}")
        if target.model:
            names = [each["name"] for each in found]
            expect(target.model in names, f"{target.model} is not in the index {names}")


SERVER_CASES = (
    server_is_live_and_ready,
    server_says_what_it_is,
    unknown_model_is_not_found,
    unknown_paths_are_refused,
    extensions_are_what_answers,
    index_lists_the_models,
)
"""Cases that run once."""


def model_is_ready(target: Target) -> None:
    """The model is ready, and each version that its metadata lists."""
    for path in (target.path, *_versions(target)):
        answer = target.http.get(f"{path}/ready")
        expect(answer.status == 200, f"{answer.asked}: status {answer.status}")


def metadata_has_its_form(target: Target) -> None:
    """Name, versions, platform, inputs and outputs have the protocol's form; outputs there are."""
    expect(target.metadata.name == target.model, f"name is {target.metadata.name!r}")
    expect(bool(target.metadata.outputs), "the model has no outputs")
    for tensors in (target.metadata.inputs, target.metadata.outputs):
        names = [meta.name for meta in tensors]
        expect(len(set(names)) == len(names), f"names are there twice: {names}")


def versions_have_metadata_of_their_own(target: Target) -> None:
    """Each listed version has metadata; one that is not listed is refused."""
    for path in _versions(target):
        said = target.http.get(path).object()
        expect(said.get("name") == target.model, f"{path} is called {said.get('name')!r}")
    for path in (f"{target.path}/versions/987654321", f"{target.path}/versions/nonsense"):
        expect_error(target.http.get(path), 400, 404)
        expect_error(Infer(binary=None).body(target).send(target, f"{path}/infer"), 400, 404)


def _versions(target: Target) -> list[str]:
    return [f"{target.path}/versions/{version}" for version in target.metadata.versions]


def configuration_agrees_with_metadata(target: Target) -> None:
    """The configuration names the same inputs and outputs."""
    target.needs("model_configuration")
    said = target.http.get(f"{target.path}/config").object()
    expect(said.get("name") == target.model, f"name is {said.get('name')!r}")
    expect(type(said.get("max_batch_size", 0)) is int, "max_batch_size is no whole number")
    for word, tensors in (("input", target.metadata.inputs), ("output", target.metadata.outputs)):
        names = sorted(each.get("name") for each in said.get(word, []))
        wanted = sorted(meta.name for meta in tensors)
        expect(names == wanted, f"{word}s are {names}, in the metadata {wanted}")


def statistics_grow(target: Target) -> None:
    """Each inference counts once, and one that fails is counted as failed."""
    target.needs("statistics")
    before = _statistics(target)
    for _ in range(3):
        infer(target, Infer(binary=None))
    after = _statistics(target)
    grown = after["inference_count"] - before["inference_count"]
    wanted = 3 if not target.shapes else max(grown - grown % 3, 3)  # a given shape may be a batch
    expect(grown == wanted, f"inference_count grew by {grown} after 3 requests")
    expect(after["execution_count"] > before["execution_count"], "execution_count did not grow")
    one, other = (each["inference_stats"]["success"] for each in (before, after))
    expect(other["count"] - one["count"] == 3, "success.count did not grow by 3")
    expect(other["ns"] > one["ns"], "success.ns did not grow")
    expect(after["last_inference"] >= before["last_inference"], "last_inference went back")


def _statistics(target: Target) -> dict[str, Any]:
    of_model: list[dict[str, Any]] = []
    for path in ("/v2/models/stats", f"{target.path}/stats"):
        said = target.http.get(path).object()
        listed = said.get("model_stats")
        if not isinstance(listed, list):
            fail(f"{path} has no list model_stats")
        of_model = [each for each in listed if each.get("name") == target.model]
        expect(bool(of_model), f"{path} has nothing of {target.model}")
    newest: dict[str, Any] = max(of_model, key=lambda each: int(each.get("version") or 0))
    return newest


MODEL_CASES = (
    model_is_ready,
    metadata_has_its_form,
    versions_have_metadata_of_their_own,
    configuration_agrees_with_metadata,
    statistics_grow,
)
"""Cases that run for each model."""
