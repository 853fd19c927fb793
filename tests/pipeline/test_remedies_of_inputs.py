"""What refusals of options, lists and settings say is to be done helps: each is done here."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import arguments, importers
from pipeline.importers import coclr, lists, ucf101
from pipeline.importers.inventory import Extracted
from pipeline.importers.matching import Entry, match
from pipeline.manifest import Manifest
from tests import remedies
from tests.remedies import helps

HEADER = "video_id,path,label,source,split\n"


def option(hint: Any, value: Any) -> None:
    """A command whose one option, of this type, is given this value."""

    def command(given): ...  # type: ignore[no-untyped-def]

    command.__annotations__ = {"given": hint}
    arguments.check(command, {"given": value})


def out_and_in(folder: Path, out: str) -> None:
    def command(first: arguments.Input, out: arguments.OutputFile) -> None: ...

    (folder / "first").touch()
    arguments.check(command, {"first": folder / "first", "out": folder / out})


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "write it in one line",
            lambda folder: option(arguments.Line, "a\nb"),
            lambda folder: option(arguments.Line, "a b"),
        ),
        remedies.case(
            "give a name, or leave the option out",
            lambda folder: option(arguments.Name, ""),
            lambda folder: option(arguments.Name, "walk"),
        ),
        remedies.case(
            "name what is meant, or leave the option out",
            lambda folder: option(arguments.Names, []),
            lambda folder: option(arguments.Names, ["walk"]),
        ),
        remedies.case(
            "give a file or a folder",
            lambda folder: option(arguments.Input, pipe(folder)),
            lambda folder: option(arguments.Input, folder),
        ),
        remedies.case(
            "give a path outside of it",
            lambda folder: (written(folder / "s" / "zarr.json", ""), option(arguments.OutputFile, folder / "s" / "x")),
            lambda folder: option(arguments.OutputFile, folder / "x"),
        ),
        remedies.case(
            "give the file to write",
            lambda folder: option(arguments.OutputFile, folder),
            lambda folder: option(arguments.OutputFile, folder / "new"),
        ),
        remedies.case(
            "give a folder, or a path where nothing is yet",
            lambda folder: ((folder / "file").touch(), option(arguments.OutputFolder, folder / "file")),
            lambda folder: [option(arguments.OutputFolder, place) for place in (folder, folder / "new")],
        ),
        remedies.case(
            "give a path, and copy what is written from there",
            lambda folder: option(arguments.OutputFile, Path("s3://bucket/x")),
            lambda folder: option(arguments.OutputFile, folder / "x"),
        ),
        remedies.case(
            "give another path", lambda folder: out_and_in(folder, "first"), lambda folder: out_and_in(folder, "second")
        ),
        remedies.case(
            "give the store's folder, or its URL",
            lambda folder: option(arguments.StorePlace, ""),
            lambda folder: [option(arguments.StorePlace, given) for given in (str(folder), "memory://a")],
        ),
        remedies.case(
            "give the whole URL",
            lambda folder: option(arguments.StorePlace, "memory://"),
            lambda folder: option(arguments.StorePlace, "memory://a"),
        ),
        remedies.case(
            "give a folder, or an object store",
            lambda folder: option(arguments.StorePlace, "http://127.0.0.1/a"),
            lambda folder: [option(arguments.StorePlace, given) for given in (str(folder), "s3://bucket/a")],
        ),
    ],
)
def test_of_options(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def manifest(folder: Path, rows: str, classes: str = "") -> Manifest:
    written(folder / "list.csv", HEADER + rows)
    written(folder / "list.classes.txt", classes) if classes else (folder / "list.classes.txt").unlink(missing_ok=True)
    return Manifest.load(folder / "list.csv")


def classes_of(folder: Path, text: str) -> list[str]:
    return lists.class_names(written(folder / "classes.txt", text))


def data_set(folder: Path, settings: str) -> dict[str, Any]:
    return importers.describe(str(written(folder / "mine.yaml", f"importer: folder\n{settings}")))


def matched(folder: Path, *entries: Entry) -> Manifest:
    written(folder / "videos" / "walk" / "a.avi", "")
    return match(folder / "videos", list(entries), ["walk"])


def sources(folder: Path, text: str) -> dict[str, str]:
    return coclr._sources(written(folder / "video_source.json", text))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "quote commas in names",
            lambda folder: manifest(folder, "a,b,a,b.mp4,,,\n"),
            lambda folder: manifest(folder, '"a,b","a,b.mp4",,,\n'),
        ),
        remedies.case(
            "correct the row, or rename the file",
            lambda folder: manifest(folder, "a,a.mp4,walk,,\na,b.mp4,walk,,\n"),
            lambda folder: manifest(folder, "a,a.mp4,walk,,\nb,b.mp4,walk,,\n"),
        ),
        remedies.case(
            "give another file as --out",
            lambda folder: manifest(folder, "a,a.mp4,walk,,\n").save(written(folder / "x", "") / "list.csv"),
            lambda folder: Manifest.load(folder / "list.csv").save(folder / "other.csv"),
        ),
        remedies.case(
            "list one class a line",
            lambda folder: classes_of(folder, "\n"),
            lambda folder: classes_of(folder, "walk\nrun\n"),
        ),
        remedies.case(
            "give a readable text file (UTF-8)",
            lambda folder: ((folder / "l").write_bytes(b"\xff\xfe"), list(lists.lines(folder / "l"))),
            lambda folder: list(lists.lines(written(folder / "l", "walk\n"))),
        ),
        remedies.case(
            "give the class list that belongs to these lists",
            lambda folder: lists.official_name("jump", {"walk": "Walk"}, "classes.txt"),
            lambda folder: lists.official_name("jump", {"jump": "Jump"}, "classes.txt"),
        ),
        remedies.case(
            "put all of the official lists there",
            lambda folder: (
                written(folder / "classInd.txt", "1 walk\n"),
                written(folder / "trainlist01.txt", "walk/v_walk_g01_c01.avi 1\n"),
                written(folder / "walk" / "v_walk_g01_c01.avi", ""),
                ucf101.read(folder),
            ),
            lambda folder: (written(folder / "testlist01.txt", "walk/v_walk_g02_c01.avi\n"), ucf101.read(folder)),
        ),
        remedies.case(
            "put them into the folder of videos or beside it, or say where they are",
            lambda folder: (written(folder / "v" / "walk" / "v_walk_g01_c01.avi", ""), ucf101.read(folder / "v")),
            lambda folder: (
                written(folder / "lists" / "classInd.txt", "1 walk\n"),
                written(folder / "lists" / "trainlist01.txt", "walk/v_walk_g01_c01.avi 1\n"),
                written(folder / "lists" / "testlist01.txt", "walk/v_walk_g02_c01.avi\n"),
                ucf101.read(folder / "v", lists=folder / "lists"),
                [path.rename(folder / "v" / path.name) for path in (folder / "lists").iterdir()],
                ucf101.read(folder / "v"),
            ),
        ),
        remedies.case(
            "list every video once, or give one list",
            lambda folder: matched(folder, Entry("walk/a.avi", "walk"), Entry("walk/a.avi", "run")),
            lambda folder: matched(folder, Entry("walk/a.avi", "walk")),
        ),
        remedies.case(
            "give the folder that holds the videos themselves",
            lambda folder: (written(folder / "frames" / "x.jpg", ""), match(folder / "frames", [Entry("walk/a")], [])),
            lambda folder: matched(folder, Entry("walk/a.avi", "walk")),
        ),
        remedies.case(
            "give the file as CoCLR ships it",
            lambda folder: sources(folder, "[1]"),
            lambda folder: sources(folder, '{"v_walk_g01_c01": 3}'),
        ),
        remedies.case(
            "write each as `name: value`",
            lambda folder: importers.read(str(written(folder / "d.yaml", "importer: ucf101\nsettings: [1]\n")), folder),
            lambda folder: importers.read(
                str(written(folder / "d.yaml", "importer: folder\nsettings: {}\n")), videos_of(folder)
            ),
        ),
        remedies.case(
            "correct it, or leave it out",
            lambda folder: importers._settings({"settings": {"split": "one"}, "file": "d.yaml"}, ["split"]),
            lambda folder: [
                importers._settings({"settings": given, "file": "d.yaml"}, ["split"]) for given in ({"split": 1}, {})
            ],
        ),
        remedies.case(
            "correct it, or leave it out",
            lambda folder: importers._known({"known": {"classes": "many"}, "file": "d.yaml"}),
            lambda folder: [importers._known({**given, "file": "d.yaml"}) for given in ({"known": {"classes": 3}}, {})],
        ),
        remedies.case(
            "leave it out, or choose another data set as DATASET=",
            lambda folder: importers.read("folder", videos_of(folder), split=1),
            lambda folder: importers.read("folder", videos_of(folder)),
        ),
        remedies.case(
            "give the frames that belong to these lists, or the lists that belong to these frames",
            lambda folder: match(Extracted(folder, ["walk/b"]), [Entry("walk/a.avi", "walk")], ["walk"]),
            lambda folder: [
                match(Extracted(folder, [f"walk/{name}"]), [Entry(f"walk/{name}.avi", "walk")], ["walk"])
                for name in "ab"
            ],
        ),
        remedies.case(
            "leave them out, or the manifest",
            lambda folder: (
                manifest(folder, "a,a.mp4,walk,,\n"),
                importers.listed("folder", videos_of(folder), manifest=folder / "list.csv", split=1),
            ),
            lambda folder: [
                importers.listed("folder", videos_of(folder), manifest=folder / "list.csv"),
                importers.listed("folder", videos_of(folder)),
            ],
        ),
        remedies.case(
            "give the folder that holds your videos: files as .mp4",
            lambda folder: ((folder / "empty").mkdir(), importers.read("folder", folder / "empty")),
            lambda folder: importers.read("folder", videos_of(folder)),
        ),
        remedies.case(
            "give the folder that holds your videos: VIDEOS=/path/to/folder",
            lambda folder: importers.read("folder", folder / "none"),
            lambda folder: importers.read("folder", videos_of(folder)),
        ),
    ],
)
def test_of_lists(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


def videos_of(folder: Path) -> Path:
    written(folder / "videos" / "walk" / "a.mp4", "")
    return folder / "videos"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "list every class once, in official order",
            lambda folder: Manifest([], ["walk", "walk"]),
            lambda folder: Manifest([], ["walk", "run"]),
        ),
        remedies.case(
            "give both the same name",
            lambda folder: Manifest([], ["caf\u00e9", "cafe\u0301"]),
            lambda folder: Manifest([], ["caf\u00e9"]),
        ),
        remedies.case(
            "rename the class",
            lambda folder: Manifest([], ["two\nlines"]),
            lambda folder: Manifest([], ["two lines"]),
        ),
    ],
)
def test_of_classes(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    helps(wrong, right, tmp_path)


@pytest.mark.remedy("make it readable, or move it out of the folder of videos")
def test_a_folder_is_made_readable_or_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, listed = videos_of(tmp_path) / "locked", os.scandir
    locked.mkdir(mode=0)

    def scandir(path: Any) -> Any:
        """As for a user who is not root."""
        if not os.stat(path).st_mode & 0o400:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)

    def read(folder: Path) -> Manifest:
        return importers.read("folder", folder / "videos")

    helps(read, lambda folder: (locked.chmod(0o700), read(folder)), tmp_path)
    locked.chmod(0)
    helps(read, lambda folder: (locked.rename(folder / "aside"), read(folder)), tmp_path)
