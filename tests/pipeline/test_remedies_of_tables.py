"""What refusals of the tables and lists of data sets say is to be done helps: each is done here."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import importers
from pipeline.importers import kinetics, table
from pipeline.manifest import Manifest
from tests import remedies
from tests.pipeline.test_remedies_of_inputs import videos_of, written

MANY = "".join(
    f"walk/{number:06}.mp4,walk\n" for number in range(csv.field_size_limit() // 20)
)  # in one field, too many


def tabled(folder: Path, rows: str, settings: str = "", **options: Any) -> Manifest:
    """The videos that a table beside them lists, by settings that a file has."""
    written(videos_of(folder).parent / "list.csv", rows)
    mine = written(folder / "mine.yaml", f"importer: table\nsettings: {{{settings}}}\n")
    return importers.read(str(mine), folder / "videos", lists=folder / "list.csv", **options)


def metadata(folder: Path, rows: str) -> Manifest:
    written(videos_of(folder) / "metadata.csv", rows)
    return importers.read("huggingface", folder / "videos")


def lines_of(folder: Path, importer: str, *text: str) -> Manifest:
    """By lists: UCF101's list of classes is its last."""
    names = {"ucf101": ("trainlist01.txt", "testlist01.txt", "classInd.txt"), "kinetics400": ("train.csv",)}
    for name, content in zip(names.get(importer, ("train.txt",)), text, strict=True):
        written(folder / "lists" / name, content)
    written(folder / "videos" / "walk" / "v_walk_g01_c01.avi", "")
    written(folder / "videos" / "walk" / "0123456789a.mp4", "")
    return importers.read(importer, folder / "videos", lists=folder / "lists")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "correct it; a dot is written \\.",
            lambda folder: tabled(folder, "path,label\nwalk/a.mp4,walk\n", "files: '[.csv'"),
            lambda folder: tabled(folder, "path,label\nwalk/a.mp4,walk\n", r"files: '.+\.csv'"),
        ),
        remedies.case(
            "write one of these",
            lambda folder: tabled(folder, "path,split\nwalk/a.mp4,tset\n"),
            lambda folder: [tabled(folder, f"path,split\nwalk/a.mp4,{name}\n") for name in ("train", "val", "test")],
        ),
        remedies.case(
            "name the column that has the videos' names as `path` in the data set's settings",
            lambda folder: tabled(folder, "file,label\nwalk/a.mp4,walk\n"),
            lambda folder: tabled(folder, "file,label\nwalk/a.mp4,walk\n", "path: file"),
        ),
        remedies.case(
            "give it a value in the column ",
            lambda folder: tabled(folder, "path,label\nwalk/a.mp4,walk\n,run\n"),
            lambda folder: tabled(folder, "path,label\nwalk/a.mp4,walk\nwalk/b.mp4,run\n"),
        ),
        remedies.case(
            "give the class list that belongs to these tables: CLASSES=",
            lambda folder: tabled(
                folder, "path,label\nwalk/a.mp4,2\n", classes=written(folder / "classes.txt", "walk\nrun\n")
            ),
            lambda folder: tabled(
                folder, "path,label\nwalk/a.mp4,2\n", classes=written(folder / "classes.txt", "sit\nrun\nwalk\n")
            ),
        ),
        remedies.case(
            "close the quote that is left open",
            lambda folder: tabled(folder, f'path,label\n"walk/a.mp4,walk\n{MANY}'),
            lambda folder: tabled(folder, f'path,label\n"walk/a.mp4",walk\n{MANY}'),
        ),
        remedies.case(
            "close the quote that is left open",
            lambda folder: lines_of(folder, "kinetics400", f'{kinetics.SHAPE}\n"walk,0123456789a,0,10,test\n{MANY}'),
            lambda folder: lines_of(folder, "kinetics400", f'{kinetics.SHAPE}\n"walk",0123456789a,0,10,test\n'),
        ),
        remedies.case(
            "give the table as the data set ships it",
            lambda folder: list(table.rows(written(folder / "list.json", '{"id": "1"}'))),
            lambda folder: list(table.rows(written(folder / "list.json", '[{"id": "1"}]'))),
        ),
        remedies.case(
            "give the folder that holds it; folders without metadata are DATASET=folder",
            lambda folder: importers.read("huggingface", videos_of(folder)),
            lambda folder: (
                importers.read("folder", videos_of(folder)),
                metadata(folder, "file_name,label\nwalk/a.mp4,walk\n"),
            ),
        ),
        remedies.case(
            "a video's path",
            lambda folder: metadata(folder, "file_name,label\n,walk\n"),
            lambda folder: metadata(folder, "file_name,label\nwalk/a.mp4,walk\n"),
        ),
        remedies.case(
            "a line of this list reads: ",
            lambda folder: lines_of(folder, "ucf101", "v_walk_g01_c01.avi 1\n", "", "1 walk\n"),
            lambda folder: lines_of(folder, "ucf101", "walk/v_walk_g01_c01.avi 1\n", "", "1 walk\n"),
        ),
        remedies.case(
            "a line of this list reads: ",
            lambda folder: lines_of(folder, "mmaction", "walk/v_walk_g01_c01.avi walk\n"),
            lambda folder: [
                lines_of(folder, "mmaction", text)
                for text in ("walk/v_walk_g01_c01.avi 0\n", "walk/v_walk_g01_c01 9 0\n")
            ],
        ),
        remedies.case(
            "a line of this list reads: ",
            lambda folder: lines_of(folder, "kinetics400", f"{kinetics.SHAPE}\nwalk,0123456789a,0,10,tset\n"),
            lambda folder: lines_of(folder, "kinetics400", f"{kinetics.SHAPE}\nwalk,0123456789a,0,10,test\n"),
        ),
    ],
)
def test_of_tables_and_lines(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    remedies.helps(wrong, right, tmp_path)
