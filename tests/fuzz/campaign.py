"""Campaign: run many cases on several cores, and show what fell.

    PYTHONPATH=src:tests python -m fuzz.campaign --minutes 30 --seed 1
    PYTHONPATH=src:tests python -m fuzz.campaign --again inspect:1-4711

What fell is kept in a folder each: the files of the case, what was printed, and the commands that
run it again. Causes are told apart by what was raised and where; the first two of each are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.case import Case
from fuzz.corpus import CORPUS, corpus_case
from fuzz.kinds import KINDS, make_case
from fuzz.known import KNOWN
from fuzz.outcome import Outcome
from fuzz.seeds import make_seeds
from fuzz.server import Server

__all__ = ["Campaign", "Tally", "main", "seeded"]

_KEPT_OF_EACH = 2
_REAL_EVERY = 25
_PROGRESS_S = 15.0
_VERDICTS = ("success", "error", "stopped", "fault")


@dataclass(slots=True)
class Tally:
    """How many cases of each kind ended how, and how often each fault was seen."""

    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, verdict: str, fault: str | None) -> None:
        """Count one case."""
        self.verdicts[name.split(":")[0], verdict] += 1
        if fault is not None:
            self.faults[fault] += 1
            self.first.setdefault(fault, name)

    @property
    def new(self) -> list[str]:
        """The faults that are not known."""
        return [fault for fault in self.faults if fault not in KNOWN]

    @property
    def cases(self) -> int:
        """How many cases there were."""
        return self.verdicts.total()

    def table(self) -> str:
        """Write a row for each kind, and a line for each fault."""
        kinds = [
            kind for kind in ("corpus", *KINDS) if any(self.verdicts[kind, v] for v in _VERDICTS)
        ]
        rows = [[kind, *(self.verdicts[kind, each] for each in _VERDICTS)] for kind in kinds]
        rows.append(["all", *(sum(row[at] for row in rows) for at in range(1, 5))])
        lines = [f"{'kind':12}{'cases':>9}" + "".join(f"{each:>9}" for each in _VERDICTS)]
        lines += [f"{r[0]:12}{sum(r[1:]):9,}" + "".join(f"{n:9,}" for n in r[1:]) for r in rows]
        for fault, n in self.faults.most_common():
            known = "known: " if fault in KNOWN else ""
            lines.append(f"{n:5}x {known}{fault} ({self.first[fault]})")
        return "\n".join(lines)


def seeded(folder: Path) -> Path:
    """Make the seeds in a process of its own, so that this one stays without threads."""
    shutil.rmtree(folder, ignore_errors=True)
    process = multiprocessing.get_context("spawn").Process(target=_quiet_seeds, args=(folder,))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the seeds were not made; see above ({folder})")
    return folder


def _quiet_seeds(folder: Path) -> None:
    os.environ["COINFER_CACHE"] = str(folder / "cache")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2) if not sys.flags.dev_mode else None
    make_seeds(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What is run, where, and for how long.

    Attributes:
        seed: Of all cases. Case number n is the same whatever else is chosen.
        work: A folder for the cases; emptied.
        kept: A folder for what falls.
        cases: At most so many, beside the corpus.
        until_s: No case starts after this moment of `time.monotonic`.
        kinds: Only these.
        workers: Processes.
        limit_s: After which a case hangs.
    """

    seed: int
    work: Path
    kept: Path
    cases: int
    until_s: float
    kinds: tuple[str, ...] = tuple(KINDS)
    workers: int = 2
    limit_s: float = 20.0

    def run(self, *, progress: bool = True) -> Tally:
        """Run all cases and count what came of them."""
        seeds = seeded(self.work / "seeds")
        context = multiprocessing.get_context("fork")
        answers: Any = context.SimpleQueue()  # has no thread, so that workers can fork
        workers = [
            context.Process(target=self._work, args=(number, seeds, answers))
            for number in range(self.workers)
        ]
        for worker in workers:
            worker.start()
        tally, working, shown_s = Tally(), len(workers), time.monotonic()
        while working:
            answer = answers.get()
            if answer is None:
                working -= 1
                continue
            name, verdict, fault = answer
            if fault is not None and fault not in tally.faults and progress:
                _say(f"fault: {fault} ({name})")
            tally.add(name, verdict, fault)
            if progress and time.monotonic() - shown_s > _PROGRESS_S:
                shown_s = time.monotonic()
                _say(f"{tally.cases:,} cases, {len(tally.faults)} different faults")
        for worker in workers:
            worker.join()
        return tally

    def _work(self, worker: int, seeds: Path, answers: Any) -> None:
        parent = os.getppid()
        try:
            server = Server(self.work / f"report-{worker}", limit_s=self.limit_s)
            server.prepare()
            kept: Counter[str] = Counter()
            for number, case in enumerate(self._share(worker, seeds), 1):
                if time.monotonic() > self.until_s or os.getppid() != parent:
                    break
                outcome = server.run(case, forked=number % _REAL_EVERY != 0)
                fault = outcome.fault
                if fault is not None:
                    kept[fault] += 1
                    if kept[fault] <= _KEPT_OF_EACH:
                        _keep(case, outcome, self.kept)
                answers.put((case.name, outcome.verdict, fault))
        except KeyboardInterrupt:
            pass  # the one who started this says what was found so far
        finally:
            answers.put(None)

    def _share(self, worker: int, seeds: Path) -> Iterator[Case]:
        """What one of the workers runs: of the corpus, and then of what is drawn."""
        folder = self.work / f"case-{worker}"
        for name in list(CORPUS)[worker :: self.workers]:
            yield corpus_case(name, seeds, folder)
        for number in range(worker, self.cases, self.workers):
            yield self._case(number, seeds, folder)

    def _case(self, number: int, seeds: Path, folder: Path) -> Case:
        weights = [KINDS[kind].weight for kind in self.kinds]
        [kind] = random.Random(f"{self.seed}/{number}").choices(self.kinds, weights)
        return make_case(kind, f"{self.seed}-{number}", seeds, folder)


def _keep(case: Case, outcome: Outcome, folder: Path) -> None:
    """Copy a case's files, what was printed, and how to run it again."""
    target = folder / case.name.replace(":", "-")
    shutil.rmtree(target, ignore_errors=True)
    with contextlib.suppress(shutil.Error):  # pipes and devices stay where they are
        shutil.copytree(case.folder, target / "files", symlinks=True)
    (target / "err.txt").write_text(outcome.err, encoding="utf-8", errors="replace")
    (target / "again.txt").write_text(
        f"{outcome.fault}\n\ncd {target / 'files'} && {case.command}\n"
        f"PYTHONPATH=src:tests python -m fuzz.campaign --again {case.name}\n"
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program


def _again(name: str, work: Path) -> int:
    kind, _, seed = name.partition(":")
    server, seeds = Server(work / "report"), seeded(work / "seeds")
    if kind == "corpus":
        case = corpus_case(seed, seeds, work / "case")
    else:
        case = make_case(kind, seed, seeds, work / "case")
    outcome = server.run(case, forked=False)
    _say(f"{case.command}\n{outcome.out}{outcome.err}\n{outcome.verdict}: {outcome.fault}")
    return int(outcome.fault is not None)


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status is 1 if anything fell that is not known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="where faults are kept")
    parser.add_argument("--again", metavar="KIND:SEED", help="run one case again")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="coinfer-fuzz-") as folder:
        if options.again:
            return _again(options.again, Path(folder).resolve())
        campaign = Campaign(
            seed=options.seed,
            work=Path(folder).resolve(),
            kept=options.out.resolve(),
            cases=options.cases,
            until_s=time.monotonic() + 60 * options.minutes,
            kinds=tuple(options.kinds),
            workers=options.workers,
        )
        tally = campaign.run()
    _say(tally.table())
    if tally.faults:
        _say(f"what fell is in {options.out}, a folder each with the command that runs it again")
    return int(bool(tally.new))


if __name__ == "__main__":
    sys.exit(main())
