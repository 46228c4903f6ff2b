"""Kinds: what can be mutated, and which commands take it. Runs nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import yaml

from fuzz.byte_mutation import mutate_bytes
from fuzz.case import Case
from fuzz.message_mutation import mutate_message
from fuzz.server_requests import write_request
from fuzz.tree_mutation import Tree, keys_of, mutate_tree

__all__ = ["KINDS", "make_case"]

_OWN_RUN = ("--duration", "0.1s")
_LONG = {
    "run",
    "simulate",
    "saturate",
    "profile",
    "plan",
    "bound",
    "partition",
    "compress",
    "batch-plan",
}
"""Commands that may rightly run for as long as files ask for."""


class _Kind(NamedTuple):
    """How often it is drawn, what it does to the folder, and what it returns to be run."""

    weight: int
    mutate: Callable[[random.Random, Path, Path], tuple[str, ...]]


def make_case(kind: str, seed: str, seeds: Path, folder: Path) -> Case:
    """Write the files of a case into a folder, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seeds / "base", folder)
    rng = random.Random(f"{kind}:{seed}")
    arguments = KINDS[kind].mutate(rng, seeds, folder)
    long = arguments[0] in _LONG
    return Case(kind=kind, seed=seed, folder=folder, arguments=arguments, may_take_long=long)


def _onnx_file(rng: random.Random, seeds: Path, folder: Path) -> None:
    names = _model_names(seeds)
    name = rng.choice(names)
    shutil.copy(seeds / "models" / "w.bin", folder / "w.bin")
    data = (seeds / "models" / f"{name}.onnx").read_bytes()
    if rng.random() < 0.85:
        proto = onnx.load_from_string(data)
        donors = [proto, _model(seeds, rng.choice(names))]
        mutate_message(proto, rng, donors)
        data = proto.SerializePartialToString(deterministic=True)
    if rng.random() < 0.2:
        data = mutate_bytes(data, rng)
    (folder / "m.onnx").write_bytes(data)


@cache
def _model_names(seeds: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (seeds / "models").glob("*.onnx")))


@cache
def _model(seeds: Path, name: str) -> Any:
    return onnx.load(seeds / "models" / f"{name}.onnx", load_external_data=False)


def _inspected(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    _onnx_file(rng, seeds, folder)
    options = (
        ("--operators",), ("--batch", "3"), ("--json", "out.json"), ("--dim", "N=2"),
        ("--dim", "x:0=7"),
    )  # fmt: skip
    return ("inspect", "m.onnx", *rng.choice(((), *options)))


def _partitioned(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    _onnx_file(rng, seeds, folder)
    mode = rng.choice(("whole", "fallback_per_processor", "unit", "merged"))
    more = rng.choice(((), ("--svg", "out.svg"), ("--pieces", "3"), ("--branches",)))
    return ("partition", "m.onnx", "--processors", "processors.yaml", "--mode", mode, *more)


def _batch_planned(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    _onnx_file(rng, seeds, folder)
    memory = rng.choice(("1MiB", "50%", "200%", "1", "1e30"))
    more = rng.choice(((), ("--json", "out.json"), ("--bandwidth", "1MiB"), ("--max-span", "1us")))
    return ("batch-plan", "m.onnx", "--memory", memory, "--requests", "3", *more)


def _fused(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    """Two damaged copies of one file, or one with itself."""
    _onnx_file(rng, seeds, folder)
    other = "m.onnx"
    if rng.random() < 0.4:
        other = "other.onnx"
        (folder / other).write_bytes((folder / "m.onnx").read_bytes())
        _onnx_file(rng, seeds, folder)
    more = rng.choice(((), ("--operators",), ("--json", "out.json"), ("--same-input", "x")))
    return ("fuse", "m.onnx", other, "-o", "fused.onnx", *more)


def _compressed(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    _onnx_file(rng, seeds, folder)
    if rng.random() < 0.25:
        return ("compress", "m.onnx", "--int8", "-o", "small.onnx", "--processor", "cpu0")
    rule = rng.choice(("ratio:0.5", "energy:0.9", "evbmf", "macs:0.7"))
    more = rng.choice(((), ("-o", "small.onnx", "--processor", "cpu0")))
    return ("compress", "m.onnx", "--svd", "--ranks", rule, *more)


def _profiled(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    _onnx_file(rng, seeds, folder)
    backend = rng.choice(("null", "onnxruntime", "onnxruntime", "openvino"))
    return ("profile", "m.onnx", "--backend", backend, "--output", "out.json")


def _ran(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    _onnx_file(rng, seeds, folder)
    cut = ", partition: {pieces: 2}" if rng.random() < 0.3 else ""
    text = (
        f"models: {{m: {{source: m.onnx{cut}}}}}\narrivals: {{m: {{closed: 2}}}}\nduration: 0.05s\n"
        "processors:\n- {name: a, backend: onnxruntime, cores: [0]}\n"
        '- {name: n, backend: "null", units: [u]}\n'
    )
    (folder / "own.yaml").write_text(text)
    return ("run", "own.yaml", "--json", "out.json")


def _planned(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    _onnx_file(rng, seeds, folder)
    return ("plan", "m.onnx", "--measure", "0.05s", "-o", "planned", "--why")


def _planned_fused(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    """Two damaged copies of one file, or one file twice, fused by the child process."""
    _onnx_file(rng, seeds, folder)
    other = "m.onnx"
    if rng.random() < 0.3:
        other = "other.onnx"
        (folder / other).write_bytes((folder / "m.onnx").read_bytes())
        _onnx_file(rng, seeds, folder)
    (folder / "own.yaml").write_text(
        f"models: {{m: {{source: m.onnx}}, k: {{source: {other}}}}}\n"
        "arrivals: {m: {closed: 1}, k: {closed: 1}}\nduration: 0.05s\nfuse: [[m, k]]\n"
        "processors:\n- {name: a, backend: onnxruntime, cores: [0]}\npolicy: earliest_finish\n"
    )
    return ("plan", "own.yaml", "--measure", "5s", "-o", "planned")


def _called(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    if rng.random() < 0.5:
        shutil.copy(seeds / "models" / f"{rng.choice(_model_names(seeds))}.onnx", folder / "m.onnx")
        shutil.copy(seeds / "models" / "w.bin", folder / "w.bin")
    else:
        _onnx_file(rng, seeds, folder)
    return ("api", "m.onnx", str(rng.randrange(10**6)))


def _mutated_yaml(path: Path, rng: random.Random, words: list[str]) -> None:
    data = path.read_bytes()
    if rng.random() < 0.85:
        tree = mutate_tree(yaml.safe_load(data), rng, words)
        data = _dumped(tree, rng).encode(errors="surrogatepass")
    if rng.random() < 0.15:
        data = mutate_bytes(data, rng)
    if rng.random() < 0.1:
        data = _yaml_trick(data, rng)
    path.write_bytes(data)


def _dumped(tree: Tree, rng: random.Random) -> str:
    # Every second one in YAML of its own kind, every second one as JSON, which is YAML as well.
    if rng.random() < 0.8:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=rng.random() < 0.5)
    return json.dumps(tree, default=str)


def _yaml_trick(data: bytes, rng: random.Random) -> bytes:
    """Add what only YAML can do: aliases, loops, tags, several documents."""
    deep = rng.choice((10, 1000, 100_000))
    tricks = (
        b"x: &a [*a]\n", b"name: &n {n: *n}\n", b"---\nmodels: {}\n",
        b"name: !!python/object:os.x {}\n",
        b"? {a: 1}\n: 2\n", b"name: " + b"[" * deep + b"]" * deep + b"\n", b"\t\tname: x\n",
        b"%YAML 9\n---\n",
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        b"b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        b"d: &d [*c,*c,*c,*c,*c,*c,*c]\n"
        b"e: &e [*d,*d,*d,*d,*d,*d,*d]\nname: [*e,*e,*e,*e,*e,*e,*e]\n",
        b"duration: 1:30\n", b"seed: 0x7fffffffffffffffffffff\n", b"<<: {name: x}\n",
        b"\xef\xbb\xbfname: y\n",
    )  # fmt: skip
    trick = rng.choice(tricks)
    return trick + data if rng.random() < 0.3 else data + b"\n" + trick


def _words(*texts: str) -> list[str]:
    found: set[str] = set()
    for text in texts:
        found |= keys_of(yaml.safe_load(text))
    return sorted(found)


@cache
def _all_words(seeds: Path) -> list[str]:
    paths = sorted((seeds / "base").glob("*.yaml"))
    return _words(*(path.read_text() for path in paths))


def _scenario(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    name = rng.choice(("run", "budget", "cut", "simulated", "simulated", "offline", "mix"))
    _mutated_yaml(folder / f"{name}.yaml", rng, _all_words(seeds))
    file = f"{name}.yaml"
    if name in ("run", "budget", "cut"):
        verbs: tuple[tuple[str, ...], ...] = (
            ("run", file, *_OWN_RUN), ("run", file, "--report", "out.html"),
            ("plan", file, "--measure", "0.05s", "-o", "planned"),
            ("simulate", file, "--machine", "machine.yaml"),
            ("bound", file),
        )  # fmt: skip
    else:
        verbs = (
            ("simulate", file), ("simulate", file, "--report", "out.html", "--json", "out.json"),
            ("simulate", file, "--record", "out.jsonl.gz", "--trace", "out.trace", *_OWN_RUN),
            ("bound", file),
            ("saturate", file, "--simulate", "--duration", "0.2s", "--precision", "0.2"),
        )  # fmt: skip
    return rng.choice(verbs)


def _machine(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    if rng.random() < 0.25:
        _mutated_yaml(folder / "processors.yaml", rng, _all_words(seeds))
        return ("partition", "zoo:tiny_branchy", "--processors", "processors.yaml")
    _mutated_yaml(folder / "machine.yaml", rng, _all_words(seeds))
    scenario = rng.choice(("simulated.yaml", "offline.yaml", "mix.yaml"))
    return rng.choice(
        (
            ("simulate", scenario),
            ("bound", scenario),
            ("simulate", scenario, "--deterministic", "--json", "out.json"),
            ("partition", "zoo:tiny_mlp", "--processors", "machine.yaml"),
        )
    )


def _plan(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    path = (
        folder
        / "plan"
        / rng.choice(("plan.yaml", "plan.yaml", "machine.json", "profiles/mlp.json"))
    )
    if path.suffix == ".yaml":
        _mutated_yaml(path, rng, _words(path.read_text()))
    else:
        _mutated_json(path, rng)
        if rng.random() < 0.8:
            _sign_again(folder / "plan", path)
    return rng.choice(
        (
            ("plan", "--diff", "plan", "other"),
            ("plan", "--diff", "other", "plan"),
            ("simulate", "planned.yaml", "--plan", "plan"),
            ("bound", "planned.yaml", "--plan", "plan"),
            ("run", "planned.yaml", "--plan", "plan", *_OWN_RUN),
        )
    )


def _sign_again(plan: Path, changed: Path) -> None:
    """State the changed file's fingerprint in the plan, so that it is read for what it says."""
    from coinfer.plan.plan_folder import _fingerprint

    text = (plan / "plan.yaml").read_text()
    tree = yaml.safe_load(text)
    name = changed.relative_to(plan).as_posix()
    files = [tree["machine"], *(model["profile"] for model in tree["models"].values())]
    for each in files:
        if each["file"] == name:
            text = text.replace(each["fingerprint"], _fingerprint(changed.read_bytes()))
    (plan / "plan.yaml").write_text(text)


def _mutated_json(path: Path, rng: random.Random) -> None:
    text = path.read_text()
    if rng.random() < 0.85:
        tree = json.loads(text)
        text = json.dumps(mutate_tree(tree, rng, sorted(keys_of(tree))), default=str, indent=1)
    data = text.encode()
    if rng.random() < 0.15:
        data = mutate_bytes(data, rng)
    if rng.random() < 0.03:
        data = b"[" * 100_000 + b"]" * 100_000
    path.write_bytes(data)


def _result(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    names = [path.name for path in sorted((seeds / "results").iterdir())]
    for name in names:
        shutil.copy(seeds / "results" / name, folder / name)
    names.remove("bound.json")  # what `compare` takes is drawn more often
    first, second = rng.choice((*names, *names, "bound.json")), rng.choice(names)
    _mutated_json(folder / first, rng)
    files = [first, second] if rng.random() < 0.5 else [second, first]
    more = rng.choice(((), ("--json", "out.json"), ("--report", "out.html")))
    return ("compare", *files, *more)


def _log(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    name = rng.choice(sorted(path.name for path in (seeds / "logs").iterdir()))
    lines = (seeds / "logs" / name).read_text().splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        _change_line(lines, rng)
    data = "\n".join(lines).encode(errors="surrogatepass")
    if rng.random() < 0.15:
        data = mutate_bytes(data, rng)
    target = "log.jsonl"
    if rng.random() < 0.2:
        target, data = "log.jsonl.gz", gzip.compress(data, mtime=0)
        if rng.random() < 0.7:
            data = mutate_bytes(data, rng)
    (folder / target).write_bytes(data)
    return ("replay", target)


def _change_line(lines: list[str], rng: random.Random) -> None:
    if not lines:
        return
    at = 0 if rng.random() < 0.25 else rng.randrange(len(lines))
    match rng.randrange(8):
        case 0:
            del lines[at]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        case 2:
            del lines[at:]
        case _:
            tree = json.loads(lines[at]) if lines[at][:1] in "[{" else lines[at]
            words = sorted(keys_of(tree)) or ["a"]
            lines[at] = json.dumps(mutate_tree(tree, rng, words), default=str)


def _arrays(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    path = folder / "in.npz"
    data = path.read_bytes()
    if rng.random() < 0.6:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        data = _zipped(members, rng)
    if rng.random() < 0.5:
        data = mutate_bytes(data, rng)
    path.write_bytes(data)
    if rng.random() < 0.5:
        return ("profile", "mlp.onnx", "--backend", "null", "--inputs", "in.npz")
    return (
        "partition",
        "mlp.onnx",
        "--processors",
        "processors.yaml",
        "--inputs",
        "in.npz",
        "--max-span",
        "1ms",
    )


def _zipped(members: Mapping[str, bytes], rng: random.Random) -> bytes:
    """Write an archive of arrays again, with other names and headers."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            found = rng.choice((name, "y.npy", "x", "../x.npy", "x/y.npy", ""))
            header = rng.choice(
                (
                    (b"(4, 16)", rng.choice((b"(4, -1)", b"(99**9,)", b"(8, 8) ", b"(0, 16)"))),
                    (b"(4, 16)", b"(999999999, 16)"),
                    (b"<f4", rng.choice((b"|O ", b"<f8", b"<i4", b"|S4", b"<c8", b"<M8", b"|V4"))),
                    (b"False", b"True "),
                )
            )
            archive.writestr(zipfile.ZipInfo(found), content.replace(*header))
    return target.getvalue()


def _photos(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    photos = folder / "photos"
    for path in sorted(photos.iterdir()):
        if rng.random() < 0.6:
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    match rng.randrange(8):
        case 0:
            (photos / "b.png").mkdir()
        case 1:
            (photos / "b.png").symlink_to("b.png")
        case 2:
            (photos / "b.jpg").write_bytes(b"")
        case 3:
            (photos / "a\nb.png").write_bytes((photos / "a.png").read_bytes())
    return ("profile", "zoo:tiny_cnn", "--backend", "null", "--inputs", "photos")


def _trace(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    path = folder / "times.csv"
    if rng.random() < 0.4:
        lines = ['{"time_s": 0.1, "model": "B"}', '{"time_s": 0.2, "model": "B"}']
        _change_line(lines, rng)
        path = folder / "times.jsonl"
        path.write_text("\n".join(lines), errors="surrogatepass")
        scenario = folder / "simulated.yaml"
        scenario.write_text(scenario.read_text().replace("times.csv", "times.jsonl"))
    else:
        cells = [line.split(",") for line in path.read_text().splitlines()]
        tree = mutate_tree(cells, rng, ["a"])
        rows = (
            [row if isinstance(row, list) else [row] for row in tree]
            if isinstance(tree, list)
            else []
        )
        text = "\n".join(",".join(str(cell) for cell in row) for row in rows)
        path.write_text(text, errors="surrogatepass")
    if rng.random() < 0.3:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    return ("simulate", "simulated.yaml")


def _cache(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    """Damage what was measured before; commands that measure look there first."""
    shutil.copytree(seeds / "measured", folder / "cache")
    paths = sorted(path for path in (folder / "cache").rglob("*") if path.is_file())
    for path in paths:
        if rng.random() < 0.6:
            _damage(path, rng)
    if rng.random() < 0.5:
        return ("profile", "mlp.onnx", "open.onnx", "--backend", "onnxruntime")
    return ("plan", "mlp.onnx", "open.onnx", "--measure", "0.2s", "-o", "planned")


def _artefacts(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    """Damage what is kept of prepared models, and ask for it."""
    store = folder / "cache" / "artefacts"
    shutil.copytree(seeds / "artefacts", store)
    for path in sorted(path for path in store.rglob("*.*") if path.is_file()):
        if rng.random() < 0.5:
            _damage(path, rng)
            if rng.random() < 0.7:
                _sign_manifest(path)
    if rng.random() < 0.2:
        os.mkfifo(store / ("0" * 32))
    verbs = (("ls",), ("ls", "--json"), ("verify",), ("verify", "--json"), ("rm", "--all"))
    return ("cache", *rng.choice(verbs))


def _sign_manifest(path: Path) -> None:
    """Put the digest of a changed manifest into it, so that it is read for what it says."""
    from coinfer.documents.digest import digest_of

    if not path.is_file() or path.is_symlink():
        return
    try:
        data = json.loads(path.read_bytes())
        data.pop("digest", None)
        path.write_text(json.dumps({**data, "digest": digest_of(data)}))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return


def _damage(path: Path, rng: random.Random) -> None:
    """Change a file of the cache, or put something else in its place."""
    match rng.randrange(12):
        case 0:
            path.unlink()
            path.mkdir()
        case 1:
            path.unlink()
            path.symlink_to(rng.choice((path.name, "/dev/zero", "/dev/null", "gone")))
        case 2:
            path.unlink()
            os.mkfifo(path)
        case 3:
            path.write_bytes(b"[" * 100_000)
        case 4:
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        case _ if path.suffix != ".json":
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        case _:
            _mutated_json(path, rng)


def _requested(rng: random.Random, seeds: Path, folder: Path) -> tuple[str, ...]:
    """A request to a server, over HTTP or gRPC."""
    write_request(rng, folder)
    return ("request", ".")


KINDS: Mapping[str, _Kind] = {
    "inspect": _Kind(24, _inspected),
    "partition": _Kind(16, _partitioned),
    "batch-plan": _Kind(4, _batch_planned),
    "fuse": _Kind(8, _fused),
    "profile": _Kind(2, _profiled),
    "compress": _Kind(8, _compressed),
    "run": _Kind(4, _ran),
    "plan-model": _Kind(2, _planned),
    "plan-fused": _Kind(1, _planned_fused),
    "api": _Kind(6, _called),
    "scenario": _Kind(20, _scenario),
    "machine": _Kind(10, _machine),
    "plan": _Kind(10, _plan),
    "result": _Kind(10, _result),
    "log": _Kind(10, _log),
    "arrays": _Kind(4, _arrays),
    "photos": _Kind(3, _photos),
    "trace": _Kind(4, _trace),
    "cache": _Kind(2, _cache),
    "artefacts": _Kind(3, _artefacts),
    "request": _Kind(8, _requested),
}
"""By name; weights are chosen so that a mean case takes a third of a second."""
