"""Annotation sets: written, read, chosen, counted against the store, split; the command `annotate`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import Refusal, UsageError
from pipeline.manifest import SPLITS, Manifest, Video
from pipeline.store import annotated, annotation, layout, open_store
from pipeline.store.annotation import AnnotationSet, OpenSet, Said, with_test_share
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.views.rgb import RgbSettings
from tests.pipeline.test_annotated import table
from tests.pipeline.test_catalogue import tiny

Run = Callable[..., tuple[int, str, str]]
ODD = st.text("ab/ ,\"\n\r名é;'", min_size=1, max_size=4)
SAID = st.builds(Said, st.sampled_from(["", "x", "y,\"z'"]), st.one_of(st.just(""), ODD), st.sampled_from(SPLITS))
SETS = st.dictionaries(ODD, SAID, max_size=8)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("annotations")


@given(said=SETS, stored=st.sets(ODD, max_size=8), block=st.sampled_from([64, 2**22]))
@example(said={"a": Said("x", "", "test")}, stored={"b", "a"}, block=2**22)
@settings(max_examples=60)
def test_what_is_written_is_read_and_laid_beside_the_videos(
    scratch: Path, said: dict[str, Said], stored: set[str], block: int
) -> None:
    content = AnnotationSet(["y,\"z'", "x"], said)
    with mock.patch.object(
        annotation, "BLOCK", block + max([0, *(len("".join((name, *one)).encode()) for name, one in said.items())])
    ):
        annotation.save(scratch, "set", content)
        assert annotation.load(scratch, "set") == content
        found = annotated.choose(scratch, table(sorted(stored)), "set")
    assert found.classes == content.classes
    rows = {name: (found.label(row), found.source(row), found.split(row)) for row, name in enumerate(sorted(stored))}
    plain = {name: said.get(name, Said()) for name in stored}
    assert rows == {name: (one.label, one.source or name, one.split) for name, one in plain.items()}
    assert (found.absent, found.left_out) == (len(said.keys() - stored), len(stored - said.keys()))
    ranks = {name: rank for rank, name in enumerate(sorted({source for _, source, _ in rows.values()}))}
    numbers = np.unique(found.sources, return_inverse=True)[1].tolist()
    assert numbers == [ranks[rows[name][1]] for name in sorted(stored)]
    again = AnnotationSet(content.classes, found.as_set().said)
    annotation.save(scratch, "again", again)
    assert annotated.choose(scratch, found.table, "again").digest_of(np.arange(len(stored))) == found.digest_of(
        np.arange(len(stored))
    )


def test_a_set_that_was_changed_is_refused(tmp_path: Path) -> None:
    annotation.save(tmp_path, "set", AnnotationSet(["x"], {"a": Said("x", "r", "train")}))
    path = layout.annotations_path(tmp_path, "set")
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(Refusal, match="annotation set 'set'") as refused:
                annotation.load(tmp_path, "set")
            assert refused.value.where == str(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(Refusal, match="does not match its digest"):
        annotation.load(tmp_path, "set")


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_arrows_threads_call_no_python(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may abort a program as it ends (apache/arrow 34314)."""
    root = tmp_path if place == "disk" else storage.location(f"memory://{tmp_path}")
    content = AnnotationSet(["x"], {"a": Said("x")})
    annotation.save(root, "set", content)
    files, read = [], pa_csv.open_csv
    monkeypatch.setattr(pa_csv, "open_csv", lambda file, **options: files.append(file) or read(file, **options))
    assert annotation.load(root, "set") == content
    assert [type(file) for file in files] == [{"disk": pa.OSFile, "memory": pa.BufferReader}[place]]


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x.json"])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        annotation.save(tmp_path, name, AnnotationSet([], {}))


def test_the_digest_tells_the_order_of_classes(tmp_path: Path) -> None:
    for name, classes in (("one", ["x", "y"]), ("same", ["x", "y"]), ("other", ["y", "x"])):
        annotation.save(tmp_path, name, AnnotationSet(classes, {"a": Said("x")}))
    digests = [OpenSet(tmp_path, name) for name in ("one", "same", "other")]
    one, same, other = ((opened.digest, list(opened.batches()))[0] for opened in digests)
    assert one == same != other


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Videos of which there are only the records."""
    create_store(tmp_path / "store", ExtractionSettings({"rgb": RgbSettings()}).resolved())
    for number in range(10):
        tiny(tmp_path / "store", f"v{number}")
    return tmp_path / "store"


def test_a_store_without_annotations_is_unlabelled(store: Path) -> None:
    opened = open_store(store)
    assert opened.classes == []
    assert {(info.label, info.source, info.split) for info in opened.infos.values()} == {
        ("", f"v{number}", "") for number in range(10)
    }


def test_the_set_of_extraction_is_the_default_or_the_only_one(store: Path) -> None:
    for name in ("first", "second", annotation.EXTRACTION):
        annotation.save(store, name, AnnotationSet([name], {"v0": Said(name)}))
        if name == "second":
            with pytest.raises(UsageError, match="several annotation sets: first, second"):
                open_store(store).annotated
            assert open_store(store).read("v0", "rgb", []).shape == (0, 16, 16, 3)  # no annotation is needed for frames
        else:
            assert open_store(store).info("v0").label == name
    assert open_store(store, "first").info("v0").label == "first"
    with pytest.raises(UsageError, match='(?s)unknown annotation set "sekond".*did you mean "second".*first'):
        open_store(store, "sekond").annotated


def test_annotate_replaces_a_set_and_tells_what_does_not_fit(run: Run, store: Path, tmp_path: Path) -> None:
    Manifest([Video(f"v{i}", "x", "odd" if i % 2 else "even", "", "train") for i in range(12)], ["odd", "even"]).save(
        tmp_path / "list.csv"
    )
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    code, out, err = run("annotate", "--store", store, "--manifest", tmp_path / "list.csv", "--name", "parity")
    assert code == 0
    assert "annotated 10 videos (10 train) of 2 classes as parity, digest" in out
    assert "not in the store: 2 videos of the annotation set 'parity'" in err
    after = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.suffix != ".csv"}
    assert json.loads(after.pop(store / "annotations.json"))["names"] == ["parity"]
    assert after == before
    Manifest([Video("v3", "x", "odd")], ["odd"]).save(tmp_path / "list.csv")
    code, out, err = run("annotate", "--store", store, "--manifest", tmp_path / "list.csv", "--name", "parity")
    assert "annotated 1 video (10 no split) of 1 class" in out
    assert "without label and split, as the annotation set 'parity' lacks them: 9 videos of the store" in err
    annotation.save(store, "another", AnnotationSet([], {}))
    code, _, err = run("status", "--store", store)
    assert code == 2 and "several annotation sets: another, parity" in err
    code, out, _ = run("status", "--store", store, "--annotations", "parity")
    assert code == 0 and "parity, digest" in out and "others are another" in out
    code, _, err = run("annotate", "--store", store)
    assert code == 2 and "there is nothing to write" in err


def test_a_share_becomes_the_test_split_where_there_is_none(run: Run, store: Path) -> None:
    labels = {f"v{number}": Said("odd" if number % 2 else "even", f"r{number // 4}") for number in range(10)}
    annotation.save(store, annotation.EXTRACTION, AnnotationSet(["even", "odd"], labels))
    assert run("annotate", "--store", store, "--name", "tested", "--test_share", "0.4", "--seed", "3")[0] == 0
    tested = annotation.load(store, "tested")
    assert tested == with_test_share(AnnotationSet(["even", "odd"], labels), 0.4, 3)
    assert {name: one._replace(split="") for name, one in tested.said.items()} == labels
    code, _, err = run("annotate", "--store", store, "--annotations", "tested", "--test_share", "0.4")
    assert code == 1 and "there is a split already: test, train" in err


CLASSED = st.lists(st.tuples(st.sampled_from(["", "x", "y"]), st.sampled_from(["r", "s", "t", "u", ""])), max_size=20)


@given(videos=CLASSED, share=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_shares_are_whole_recordings_of_every_class(videos: list[tuple[str, str]], share: float, seed: int) -> None:
    said = {f"v{number:02d}": Said(*video) for number, video in enumerate(videos)}
    made = with_test_share(AnnotationSet(["x", "y"], said), share, seed).said
    for label in ("", "x", "y"):
        own = {name: one for name, one in made.items() if one.label == label}
        splits: dict[str, set[str]] = {}
        for name, one in own.items():
            splits.setdefault(one.source or name, set()).add(one.split)
        assert all(len(found) == 1 for found in splits.values())
        counts = Counter(one.split for one in own.values())
        if len(splits) > 1:
            assert counts["test"] and counts["train"]
            largest = max(Counter(one.source or name for name, one in own.items()).values())
            assert counts["test"] < share * len(own) + largest
        alone = {name: one for name, one in said.items() if one.label == label}
        assert with_test_share(AnnotationSet(["x", "y"], alone), share, seed).said == own


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(UsageError, match="no share"):
        with_test_share(AnnotationSet([], {}), share, 0)


def test_a_manifest_that_is_silent_takes_nothing_away() -> None:
    before = AnnotationSet(["run", "walk"], {"a": Said("walk", "g1", "test"), "b": Said("run", "", "train")})
    silent = AnnotationSet(["run", "walk"], {"a": Said("walk"), "b": Said("walk"), "c": Said("run")})
    after = before.updated(silent)
    assert after.said == {"a": Said("walk", "g1", "test"), "b": Said("walk", "", "train"), "c": Said("run")}
    assert before.changed(silent) == 1


@pytest.mark.remedy("give both the same name")
def test_a_name_that_looks_like_one_that_is_there_is_refused() -> None:
    before = AnnotationSet(["caf\u00e9"], {"a": Said("caf\u00e9", "caf\u00e9")})

    def label(name: str) -> AnnotationSet:
        return AnnotationSet([name], {"b": Said(name)})

    def recording(name: str) -> AnnotationSet:
        return AnnotationSet([], {"b": Said("", name)})

    for newer in (label, recording):
        with pytest.raises(Refusal, match=r"'caf\\xe9' and 'cafe\\u0301' look alike"):
            before.updated(newer("cafe\u0301"))
        for name in ("caf\u00e9", "tea"):
            assert before.updated(newer(name)).said["b"] == newer(name).said["b"]
