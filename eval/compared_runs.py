"""The results of evaluated runs, as they are compared: those of one test, and nothing twice."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval import results
from eval.results import MEAN, Record
from pipeline import called
from pipeline.errors import Refusal, UsageError
from train.provenance import recipe_hash
from train.run_folder import RECIPE, read_recipe


@dataclass(frozen=True)
class Run:
    """One evaluated run, or the mean of several."""

    paths: tuple[Path, ...]  # several, where it is the mean of runs by several annotation sets
    seed: int | str  # with those of the runs that it began with, "1/0", where they differ
    recipe: str  # as written, without its seed
    title: str
    records: list[Record]

    @property
    def test(self) -> tuple[str, str]:
        """The names of the store and of the annotation set that it was evaluated by."""
        return self.records[0].data, self.records[0].set_name

    def chance(self) -> dict[str, float]:
        """What guessing gives, by metric."""
        return {record.metric: record.chance for record in self.records if record.chance is not None}


def read(paths: Sequence[Path], protocol: str, data: str, annotations: str) -> list[Run]:
    """The runs, those of one recipe and seed by several annotation sets as one. Raises as `eval.compare.compare`."""
    found = _over_sets([_read(path, protocol, data, annotations) for path in paths])
    _refuse_mixtures(found)
    return found


def names(found: list[Run]) -> dict[str, str]:
    """A name for each recipe: its title, and the folder of its first run where others have the same title."""
    first = {run.recipe: run for run in reversed(found)}
    ordered = {run.recipe: first[run.recipe] for run in found}
    titles = [run.title for run in ordered.values()]
    return {
        recipe: run.title if titles.count(run.title) == 1 else f"{run.title} ({run.paths[0].name})"
        for recipe, run in ordered.items()
    }


def _read(path: Path, protocol: str, data: str, annotations: str) -> Run:
    recipe = read_recipe(path)
    seed, begun = recipe.pop("seed"), _with_begun(recipe)
    seeds = [*dict.fromkeys([*begun, seed])]
    listed = results.read(path / "results.json")
    records = [record for record in listed if record.protocol == protocol]
    if not records:
        asked = f"[{','.join(dict.fromkeys([*(record.protocol for record in listed), protocol]))}]"
        remedy = f"{called.command('evaluate', run=str(path), store='', protocols=asked)}, or another --protocol"
        raise Refusal(f"the run was not evaluated by protocol {protocol!r}", where=str(path), remedy=remedy)
    records = _of_one_test(path, records, data, annotations)
    return Run(
        (path,),
        seed if len(seeds) == 1 else "/".join(map(str, seeds)),
        yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
        recipe["title"],
        records,
    )


def _with_begun(recipe: dict[str, Any]) -> list[int]:
    """Let a recipe name, in the place of files that its stages start from, the recipes of the runs that made them, so
    that the same on runs with other seeds is the same; the seeds of these runs."""
    seeds = []
    for stage in recipe["stages"]:
        for role, given in stage.get("start", {}).items():
            made_by = Path(given).parent.parent
            if "/" in given and os.path.isfile(made_by.parent / RECIPE):
                begun = read_recipe(made_by.parent)
                seeds += [begun.pop("seed"), *_with_begun(begun)]
                stage["start"][role] = f"{made_by.name} of {begun['title']}, recipe {recipe_hash(begun)}"
    return seeds


def _of_one_test(path: Path, records: list[Record], data: str, annotations: str) -> list[Record]:
    """The records of one store and annotation set, which are named where there are several."""
    data = unicodedata.normalize("NFC", data)
    chosen = [r for r in records if data in ("", r.data) and annotations in ("", r.set_name)]
    tests = sorted({(r.data, r.set_name) for r in chosen})
    means = [test for test in tests if test[1].startswith(MEAN)]
    if len(tests) > 1 and len(means) == 1 and len({name for name, _ in tests}) == 1:
        tests = means
    if len(tests) != 1:
        there = sorted({(r.data, r.set_name) for r in records})
        raise UsageError(
            f"the run was evaluated on {len(there)} stores and annotation sets, and {len(tests)} of them are meant",
            where=str(path),
            remedy="--data and --annotations: " + "; ".join(f"{name} by {given}" for name, given in there),
        )
    return [r for r in chosen if (r.data, r.set_name) == tests[0]]


def _over_sets(found: list[Run]) -> list[Run]:
    """Of the runs of one recipe and seed that were evaluated by several annotation sets the mean, in the place of the
    first."""
    groups: dict[tuple[str, int | str], list[Run]] = {}
    for run in found:
        groups.setdefault((run.recipe, run.seed), []).append(run)
    made = []
    for group in groups.values():
        by_test: dict[tuple[str, str], Run] = {}
        for run in group:
            if (other := by_test.setdefault(run.test, run)) is not run:
                raise Refusal(
                    f"the same recipe and the same seed, {run.seed}, stand in two runs",
                    where=f"{other.paths[0]}, {run.paths[0]}",
                    remedy="give one of them: they would count twice",
                )
        names = sorted(name for _, name in by_test)
        if len(group) == 1 or len({data for data, _ in by_test}) > 1:
            made += group
            continue
        # Each has checkpoints of its own, by which measurements are otherwise told apart.
        records = [dataclasses.replace(record, checkpoint="-") for run in group for record in run.records]
        paths = tuple(path for run in group for path in run.paths)
        mean = results.means(records, names)
        if not mean:
            raise Refusal(
                f"nothing was measured by all of {', '.join(names)}",
                where=", ".join(map(str, paths)),
                remedy=_on_one_store(),
            )
        made.append(dataclasses.replace(group[0], paths=paths, records=mean))
    return made


def _refuse_mixtures(found: list[Run]) -> None:
    first, guessing = found[0], dict[str, float]()
    for run in found:
        # What guessing gives follows from the classes of all test and training videos.
        own = run.chance()
        unlike = any(guessing.setdefault(metric, chance) != chance for metric, chance in own.items())
        if run.test != first.test or unlike:
            told = [" by ".join(one.test) for one in (run, first)]
            raise Refusal(
                f"the runs were evaluated on other videos: {' and '.join(told)}",
                where=f"{run.paths[0]}, {first.paths[0]}",
                remedy=_on_one_store(),
            )


def _on_one_store() -> str:
    return f"evaluate them on one store: {called.command('evaluate', run='', store='')}"
