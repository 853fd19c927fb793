"""Runs side by side: what becomes one line, its mean and spread, and what is not compared."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval import commands, results
from eval.compare import compare, write_page
from eval.results import Record
from pipeline.errors import Refusal, UsageError
from tests.eval.test_report import Page, words

SAID = {"sampling": {}, "splits": ["train"], "stages": [{"name": "rgb"}]}  # what every recipe of a run says


def write_run(folder: Path, title: str, seed: int, measured: dict[tuple[str, str, str], float], **record: Any) -> Path:
    """A run with these R@1 by (stream, stage, network); its other figures follow from them."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"title": title, "seed": seed, **SAID}))
    metrics = {"R@1": 1.0, "R@5": 1.1, "R@10": 1.2, "R@20": 1.25, "R@50": 1.3, "linear_top1": 1.15}
    common = {
        "protocol": "clean",
        "split": "test",
        "data": "tiny",
        "checkpoint": "c",
        "annotations": "extraction a",
        "chance": 0.1,
    } | record
    listed = [
        Record(metric=metric, value=value * factor, stream=stream, stage=stage, network=network, **common)
        for (stream, stage, network), value in measured.items()
        for metric, factor in metrics.items()
    ]
    results.write(folder / "results.json", listed)
    return folder


def trained(value: float, untrained: float = 0.2, stage: str = "rgb") -> dict[tuple[str, str, str], float]:
    return {("rgb", stage, "trained"): value, ("rgb", stage, "untrained"): untrained}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Recipe A with seeds 0 to 2, recipe B with seeds 0 and 2, both from the same first weights."""
    return [
        *(
            write_run(tmp_path / f"a{s}", "A", s, trained(v, u))
            for s, v, u in ((2, 0.5, 0.21), (0, 0.3, 0.2), (1, 0.4, 0.22))
        ),
        *(write_run(tmp_path / f"b{s}", "B", s, trained(v, u)) for s, v, u in ((0, 0.6, 0.2), (2, 0.7, 0.21))),
    ]


def test_recipes_that_differ_in_the_seed_alone_are_one_line(runs: list[Path]) -> None:
    comparison = compare(runs)
    found = {(line.recipe, line.network): line for line in comparison.lines}
    line = found["A", "trained"]
    assert line.seeds == (0, 1, 2)
    assert line.values["R@1"] == (0.3, 0.4, 0.5)
    assert line.mean("R@1") == pytest.approx(0.4)
    assert line.spread("R@1") == pytest.approx(statistics.stdev([0.3, 0.4, 0.5]))
    assert line.words("linear_top1") == "46.0 ± 11.5"
    assert found["B", "trained"].values["R@1"] == (0.6, 0.7)
    assert comparison.recipes == {name: {"title": name, **SAID} for name in "AB"}


def test_what_changed_is_told_in_one_direction_of_all_streams(tmp_path: Path) -> None:
    made = []
    for name, flow, rgb in (("A", 0.2, 0.4), ("B", 0.5, 0.3)):
        measured = {("flow", "rgb", "trained"): flow, ("rgb", "rgb", "trained"): rgb}
        measured |= {("two-stream", stage, "trained"): rgb for stage in ("rgb", "flow+rgb")}  # by one stage, by two
        made.append(write_run(tmp_path / name, name, 0, measured))
    for given in (made, made[::-1]):
        found = compare(given).last_stages()
        assert {stream: list(lines) for stream, lines in found.items()} == dict.fromkeys(
            ("flow", "rgb"), [run.name for run in given]
        )


def test_the_baseline_of_a_stream_comes_first_and_then_the_best(runs: list[Path]) -> None:
    found = [(line.recipe, line.network) for line in compare(runs).lines]
    assert {network for _, network in found[:-2]} == {"untrained"}
    assert found[-2:] == [("B", "trained"), ("A", "trained")]


def test_what_differs_between_recipes_is_listed(runs: list[Path], tmp_path: Path) -> None:
    for run in runs:
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        stages = [{"name": "rgb", "steps": 100 if recipe["title"] == "A" else 200}]
        stages += [{"name": "later", "method": "cmc", "steps": 3}] if recipe["title"] == "A" else []
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"stages": stages}))
    write_page(compare(runs), tmp_path / "page.html")
    shown = words((tmp_path / "page.html").read_text())
    assert "What differs; all else is the same." in shown
    assert re.search(r"stages\.latercmc–\s*stages\.rgb\.steps100200", shown), shown[shown.index("What differs") :][:200]
    assert "stages.later." not in shown  # what a stage says that others do not have is no difference of its own


def begun(folder: Path, seed: int, of: Path, value: float, chance: float = 0.1) -> Path:
    """A run that was fine-tuned from `of`, with a published number beside its own."""
    run = write_run(folder, "F", seed, {})
    start = {"network": str(of / "rgb" / "checkpoints" / "last.ckpt")}
    content = {"title": "F", "seed": seed, **SAID, "stages": [{"name": "rgb", "start": start}]}
    (run / "recipe.yaml").write_text(yaml.safe_dump(content))
    common = {"protocol": "clean", "stream": "rgb", "network": "trained", "stage": "rgb", "split": "test"}
    common |= {"data": "tiny", "checkpoint": "c", "annotations": "extraction a"}
    metric = "finetune_top1"
    results.write(run / "results.json", [Record(metric, value, chance=chance, published=0.814, **common)])
    return run


def test_fine_tuning_of_several_seeds_is_one_line_beside_its_pre_training(runs: list[Path], tmp_path: Path) -> None:
    """Runs begin with other files then; figures that others lack stand in columns of their own."""
    tuned = [begun(tmp_path / f"f{s}", s, tmp_path / f"a{s}", 0.5 + s / 10) for s in (0, 1)]
    comparison = compare([*runs, *tuned])
    (line,) = (line for line in comparison.lines if line.recipe == "F")
    assert (line.seeds, line.values) == ((0, 1), {"finetune_top1": (0.5, 0.6)})
    assert line.published == {"finetune_top1": 0.814}
    sheet = comparison.sheet().table
    assert sheet.head[5:8] == ("R@1", "linear", "fine-tuned") and sheet.head[-1] == "published fine-tuned"
    (row,) = (row for row in sheet.rows if row[1] == "F")
    assert (row[5], row[7], row[-1]) == (None, "55.0 ± 7.1", pytest.approx(81.4))
    assert "| 55.0 ± 7.1 |" in comparison.table()
    assert comparison.recipes["F"]["stages"][0]["start"]["network"].startswith("rgb of A, recipe ")


def test_seeds_of_pre_training_and_fine_tuning_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    tuned = [begun(tmp_path / f"f{s}", 0, tmp_path / f"a{s}", 0.5 + s / 10) for s in (2, 0, 1)]
    (line,) = compare(tuned).lines
    assert (line.seeds, line.values["finetune_top1"]) == ((0, "1/0", "2/0"), (0.5, 0.6, 0.7))
    other = begun(tmp_path / "other", 3, tmp_path / "b0", 0.4)  # of another recipe
    assert len(compare([*tuned, other]).lines) == 2
    with pytest.raises(Refusal, match="other videos"):
        compare([*tuned, begun(tmp_path / "guess", 4, tmp_path / "a0", 0.4, chance=0.2)])


def test_the_order_of_the_runs_changes_nothing_but_names(runs: list[Path]) -> None:
    assert compare(runs).lines == compare(runs[::-1]).lines


def test_an_untrained_network_is_listed_once(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", "A", 0, trained(0.5))
    same = write_run(tmp_path / "same", "B", 0, trained(0.6))
    other = write_run(tmp_path / "other", "C", 0, trained(0.7, untrained=0.21))
    untrained = [line.recipe for line in compare([one, same, other]).lines if line.network == "untrained"]
    assert untrained == ["C", "A"]
    trained_alike = write_run(tmp_path / "alike", "D", 0, trained(0.5))
    assert len([line for line in compare([one, trained_alike]).lines if line.network == "trained"]) == 2


def test_a_stage_that_one_seed_lacks_says_so(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", "A", 0, trained(0.5) | trained(0.6, stage="later"))
    begun = write_run(tmp_path / "begun", "A", 1, trained(0.4))
    seeds = {line.stage: line.seeds for line in compare([whole, begun]).lines if line.network == "trained"}
    assert seeds == {"rgb": (0, 1), "later": (0,)}


def test_recipes_of_one_title_are_told_apart_by_their_runs(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, "A", 0, trained(value)) for name, value in (("one", 0.5), ("two", 0.6))]
    (runs[1] / "recipe.yaml").write_text(yaml.safe_dump({"title": "A", "seed": 0, "batch": 8, **SAID}))
    assert {line.recipe for line in compare(runs).lines} == {"A (one)", "A (two)"}


def test_the_table_and_the_page_show_every_line(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    commands.compare(runs, tmp_path / "pages" / "comparison.html")
    table = capsys.readouterr().out
    assert "| rgb | A | rgb | trained | 0 1 2 | 40.0 ± 10.0 | 30.0 40.0 50.0 | 46.0 ± 11.5 |" in table
    assert "compared 5 runs of 2 recipes" in table
    text = (tmp_path / "pages" / "comparison.html").read_text()
    assert all(link.startswith("data:") for link in Page(text).loads) and "http" not in text
    shown = words(text)
    comparison = compare(runs)
    for line in comparison.lines:
        assert all(line.words(metric) in shown for metric in line.values)
    assert text.count('<circle class="each"') == sum(len(line.seeds) for line in comparison.lines)
    assert "guessing" in shown and "title: A" in shown


def test_one_run_alone_has_no_spread(tmp_path: Path) -> None:
    comparison = compare([write_run(tmp_path / "one", "<A>", 0, trained(0.5))])
    assert comparison.lines[-1].words("R@1") == "50.0"
    write_page(comparison, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<circle" not in text[text.index("<body>") :] and "<A>" not in text


def refused(runs: list[Path], match: str, **options: str) -> None:
    with pytest.raises(Refusal, match=match):
        compare(runs, **options)


def test_runs_by_several_annotation_sets_are_one_their_mean(tmp_path: Path) -> None:
    def by_splits(title: str, seed: int, *values: float, sets: int = 2) -> list[Path]:
        return [
            write_run(
                tmp_path / f"{title}{seed}-{number}",
                title,
                seed,
                {("rgb", "rgb", "trained"): value},
                annotations=f"split{number} {number}",
                checkpoint=str(number),
            )
            for number, value in enumerate(values[:sets], start=1)
        ]

    runs = [*by_splits("A", 0, 0.5, 0.7), *by_splits("A", 1, 0.3, 0.4), *by_splits("B", 0, 0.6, 0.4)]
    comparison = compare(runs[::-1])
    assert comparison.over == ("split1", "split2")
    assert comparison.tested == "tiny, mean over split1, split2"
    values = {line.recipe: line.values["R@1"] for line in comparison.lines}
    assert values == {"A": (pytest.approx(0.6), pytest.approx(0.35)), "B": (pytest.approx(0.5),)}
    assert sorted(comparison.runs_of()["A"]) == sorted(runs[:4])
    write_page(comparison, tmp_path / "page.html")
    assert comparison.tested in (tmp_path / "page.html").read_text()
    refused([*runs, *by_splits("C", 0, 0.2, sets=1)], "tiny by split1 and tiny by mean of split1, split2")
    refused([*runs, write_run(tmp_path / "twice", "A", 0, trained(0.5), annotations="split1 1")], "the same seed, 0,")
    other = write_run(tmp_path / "apart", "D", 0, {("flow", "flow", "trained"): 0.2}, annotations="split2 2")
    refused([*by_splits("D", 0, 0.2, sets=1), other], "nothing was measured by all of split1, split2")


@pytest.mark.remedy("give one of them: they would count twice", "--data and --annotations: ")
def test_what_cannot_be_compared_is_refused(runs: list[Path], tmp_path: Path) -> None:
    refused([tmp_path / "nowhere"], "no such folder")
    refused([runs[0], write_run(tmp_path / "again", "A", 2, trained(0.1))], "the same recipe and the same seed, 2,")
    refused(
        [runs[0], write_run(tmp_path / "data", "C", 0, trained(0.1), data="ucf101")],
        "other videos: ucf101 by extraction and tiny by extraction",
    )
    refused([runs[0], write_run(tmp_path / "test", "D", 0, trained(0.1), chance=0.2)], "other videos")
    refused(runs, "not evaluated by protocol 'coclr'", protocol="coclr")
    with pytest.raises(UsageError, match="clean"):
        compare(runs, protocol="clen")
    compare([runs[0]])
    path = tmp_path / "data" / "results.json"
    results.write(path, [*results.read(path), *results.read(runs[0] / "results.json")])
    with pytest.raises(UsageError, match="--data and --annotations: tiny by extraction; ucf101 by extraction"):
        compare([tmp_path / "data"])
    compare([tmp_path / "data"], data="ucf101", annotations="extraction")
