"""The report: self-contained, truthful in words, and its pictures and curves."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval import charts, filmstrips, report, results
from eval.bank import FeatureBank
from eval.published import about
from eval.runs import bank_path
from pipeline.errors import Refusal
from pipeline.store import VideoStore, open_store


class Page(html.parser.HTMLParser):
    """Checks that every element is closed, and collects what a page would load."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in self.void:
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        assert tag not in ("link", "iframe", "object") and (tag != "script" or not attrs)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def change(path: Path, **changes) -> None:
    """Rewrite the R@1 of both networks in results.json: trained=..., untrained=..."""
    records = results.read(path)
    results.write(
        path,
        [dataclasses.replace(r, value=changes[r.network]) if r.metric == "R@1" else r for r in records],
    )


def words(page: str) -> str:
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body))


def test_the_page_needs_nothing_from_outside_and_is_small(evaluated: Path) -> None:
    text = (evaluated / "report.html").read_text()
    page = Page(text)
    forms = ("image/jpeg", "text/csv", "text/markdown", "application/x-tex")
    assert page.loads and all(value.startswith(tuple(f"data:{form};base64," for form in forms)) for value in page.loads)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert len(text) < 4e6


def test_the_first_screen_says_the_result_and_how_to_go_on(evaluated: Path, store: VideoStore) -> None:
    change(evaluated / "results.json", trained=1.0, untrained=0.3)
    shown = words(report.write_report(evaluated, store).read_text())
    assert "100 % right after self-supervised training" in shown
    assert "Before training it was 30 % (gain +70.0 ± 18.7 points, one standard error; stage" in shown
    assert "the last), by guessing it would be 33 %" in shown and "What training changed" in shown
    assert "For each of 6 test videos" in shown and "12 training videos" in shown
    for command in ("make extract-flow VIDEOS=", "make pretrain METHOD=", "make evaluate RUN="):
        assert command in shown


def test_training_that_did_not_help_is_called_so(evaluated: Path, store: VideoStore) -> None:
    for trained, untrained, told in (
        (0.1, 0.7, "Training has not helped: before it, the same network had 70 %"),
        (0.5, 0.3, "No sure difference: before training, the same network had 30 %"),
    ):
        change(evaluated / "results.json", trained=trained, untrained=untrained)
        assert told in words(report.write_report(evaluated, store).read_text())


def test_the_page_shows_every_number_of_the_results(evaluated: Path, store: VideoStore) -> None:
    page = words(report.write_report(evaluated, store).read_text())
    for record in results.read(evaluated / "results.json"):
        assert f"{100 * record.value:.1f}" in page
    assert "dis" in page and "none: every video could be used" in page
    assert "title: tiny" in page


def test_names_are_escaped(evaluated: Path, store: VideoStore) -> None:
    (evaluated / "recipe.yaml").write_text(
        (evaluated / "recipe.yaml").read_text().replace("title: tiny", "title: <b>&")
    )
    page = report.write_report(evaluated, store).read_text()
    assert "title: &lt;b&gt;&amp;" in page and "title: <b>" not in page


def test_published_numbers_only_for_their_data_set(evaluated: Path, store: VideoStore, tmp_path: Path) -> None:
    assert "Published numbers" not in words(report.write_report(evaluated, store).read_text())
    named = open_store(shutil.copytree(store.root, tmp_path / "hmdb51"))
    (evaluated / "features" / store.root.name).rename(evaluated / "features" / "hmdb51")
    path = evaluated / "results.json"
    results.write(path, [dataclasses.replace(r, data="hmdb51") for r in results.read(path)])
    page = words(report.write_report(evaluated, named).read_text())
    assert "Published numbers on hmdb51" in page and "Quoted from the papers" in page
    assert all(f"{100 * row.value:.1f}" in page for row in about("hmdb51"))


def test_a_run_without_results_fails(run: Path, store: VideoStore) -> None:
    with pytest.raises(Refusal, match="no results"):
        report.write_report(run, store)


def test_another_store_fails(evaluated: Path, unlabelled_store: VideoStore) -> None:
    with pytest.raises(Refusal, match="other videos"):
        report.write_report(evaluated, unlabelled_store)


def test_a_half_written_last_line_of_the_log_is_left_out(evaluated: Path, store: VideoStore) -> None:
    log = evaluated / "flow" / "metrics.jsonl"
    whole = report.write_report(evaluated, store).read_text()
    log.write_text(log.read_text() + json.dumps({"step": 99, "loss": 1.0})[:-3])
    assert report.write_report(evaluated, store).read_text() == whole


def test_queries_are_of_different_classes_and_follow_from_the_seed(evaluated: Path, store: VideoStore) -> None:
    bank = FeatureBank.load(bank_path(evaluated, store, "rgb", "trained", "clean", "rgb"))
    chosen = filmstrips.choose_queries(bank, 3)
    label = dict(zip(bank.video_ids, bank.labels, strict=True))
    assert {label[video] for video in chosen} == {0, 1, 2}
    assert chosen == filmstrips.choose_queries(bank, 3)
    assert sorted(filmstrips.choose_queries(bank, 99)) == sorted(bank.video_ids[row] for row in bank.rows("test"))


def test_strips_show_the_nearest_training_videos(evaluated: Path, store: VideoStore) -> None:
    banks = [
        FeatureBank.load(bank_path(evaluated, store, "flow", n, "clean", "flow")) for n in ("trained", "untrained")
    ]
    queries = filmstrips.choose_queries(banks[0], 2)
    made = filmstrips.strips(store, *banks, queries)
    assert [strip.video_id for strip in made] == queries
    for strip in made:
        for bank, right in zip(banks, ([n.right for n in strip.neighbours], strip.before), strict=True):
            tested, gallery = bank.rows("test"), bank.rows("train")
            unit = []
            for rows in (tested, gallery):
                centred = bank.features[rows] - bank.features[rows].mean(0)
                unit.append(centred / np.linalg.norm(centred, axis=1, keepdims=True))
            row = [bank.video_ids[r] for r in tested].index(strip.video_id)
            order = gallery[np.argsort(-(unit[1] @ unit[0][row]))][: filmstrips.NEIGHBOURS]
            assert right == [bool(bank.labels[r] == bank.labels[tested[row]]) for r in order]
            if bank is banks[0]:
                assert [n.video_id for n in strip.neighbours] == [bank.video_ids[r] for r in order]
        assert [n.right for n in strip.neighbours] == [n.label == strip.label for n in strip.neighbours]
    with pytest.raises(Refusal, match="different videos"):
        filmstrips.strips(store, banks[0], dataclasses.replace(banks[1], video_ids=["other"]), queries)


@pytest.mark.parametrize(("stream", "tall"), [("rgb", 1), ("flow", 2)])
def test_a_picture_is_a_jpeg_of_frames_side_by_side(store: VideoStore, stream: str, tall: int) -> None:
    video = store.videos[0]
    picture = filmstrips.picture(store, video, stream, clip_frames=8)
    sheet = cv2.imdecode(np.frombuffer(base64.b64decode(picture.uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.frames == 8
    assert sheet.shape == (picture.height, picture.width * picture.frames, 3) == (32 * tall, 48 * 8, 3)
    middle = store.read(video, "rgb", [6])[0]  # 20 frames have flow; the eight in the middle begin with the sixth
    shown = cv2.cvtColor(sheet[:32, :48], cv2.COLOR_BGR2RGB)
    assert np.abs(shown.astype(int) - middle).mean() < 12


def test_curve_keeps_its_limits_and_skips_what_is_not_finite() -> None:
    steps = np.arange(1, 2001)
    losses = 4 * np.exp(-steps / 500) + 1
    losses[10] = np.nan
    made = charts.curve((steps, losses))
    points = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", made.path), dtype=float)
    assert len(points) == charts.POINTS and points.min() >= 0 and points.max() <= 100
    assert made.x_max == 2000 and made.y_min < made.y_max < 5
    assert made.last < made.first
    assert charts.curve(([5], [2.0])).path == "M0.00 0.00"


def test_curves_of_seeds_are_each_drawn_and_their_mean_as_far_as_all_go() -> None:
    made = charts.curve(([0, 5, 10], [4.0, 2.0, 0.0]), ([0, 10, 20], [2.0, 2.0, 1.0]))
    assert made.path == "M0.00 0.00 L25.00 50.00 L50.00 100.00 M0.00 50.00 L50.00 50.00 L100.00 75.00"
    assert made.smooth == "M0.00 25.00 L25.00 50.00 L50.00 75.00"
    assert (made.first, made.last, made.x_min, made.x_max, made.y_min, made.y_max) == (3.0, 1.0, 0, 20, 0.0, 4.0)
