"""Every id, class, path and store name that extraction accepts works in every command."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import synthetic
from pipeline.manifest import Manifest, Video
from pipeline.store import open_store

Run = Callable[..., tuple[int, str, str]]
# fmt: off
ODD = [
    "-a", "--view", "a b", "a'b", 'a"b', "[a]", "[bold]x", "{a}", "#a", "&a", ";a", "a%2Fb", "%41", "...", "a.", "a ",
    " a", "null", "123", "1e3", "true", "~", "@a", "$HOME", "`a`", "a,b", "a:b", "*", "?", "\\", "\U0001f600",
    "e\u0301", "é2", "<b>", "rgb", "zarr.json", "__a", "a.json", "b.partial", "a\x1b[31m",
    "a\u202eb", "x" * 200, "é" * 100,
]
# fmt: on


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clip") / "clip.mp4"
    synthetic.write_mp4(file, synthetic.video(synthetic.CLASSES[0], 0, frames=2, height=16, width=16))
    return file


@pytest.mark.usefixtures("in_this_process")
def test_every_odd_name_works_in_every_command(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    videos, store = Path("-videos [x] #"), "-store & [bold]"
    for name in ODD:
        (videos / name).mkdir(parents=True)
        shutil.copyfile(clip, videos / name / f"{name}.mp4")
    rows = [Video(f"{name}/{name}", f"{name}/{name}.mp4", name, name, "train") for name in ODD]
    rows[0] = Video("a\nb/\tc", *dataclasses.astuple(rows[0])[1:])  # no class or recording has two lines
    Manifest(rows, ODD).save(Path("#list.csv"))
    extract = (
        "extract",
        f"--videos={videos}",
        f"--store={store}",
        "--manifest=#list.csv",
        "--views=rgb",
        "--workers=2",
    )
    code, out, err = run(*extract)
    assert (code, f"stored {len(ODD)} videos" in out) == (0, True), err
    assert sorted(open_store(store).videos) == sorted(row.video_id for row in rows)
    ids = [row.video_id for row in rows]
    for command in ("status", "verify"):
        code, out, err = run(command, f"--store={store}")
        assert code == 0, err
        assert "\x1b" not in out
    shown = run("status", f"--store={store}", "--show=videos")[1]
    assert (shown.count("\t"), "a\\nb/\\tc\t2\t" in shown) == (3 * len(rows), True)
    assert run("annotate", f"--store={store}", "--manifest=#list.csv", "--name=-set")[0] == 0
    assert "[bold]" in run("verify", f"--store={store}")[1]
    listed = json.dumps(ids[::4], ensure_ascii=True).replace("\\ud83d\\ude00", "\U0001f600")
    code, _, err = run("preview", f"--store={store}", "--out=-sheets", f"--videos={listed}")
    assert code == 0, err
    for number, video_id in enumerate([*ids[:2], *ids[2::5]]):
        code, out, err = run("export", f"--out=out/{number}.npy", "--", store, video_id)
        assert code == 0, err
        assert Path(f"out/{number}.npy").is_file()
        assert "\x1b" not in out


@pytest.mark.usefixtures("in_this_process")
def test_an_id_is_found_in_the_other_normal_form(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stored, typed = "caf\u00e9/\u00fc", "cafe\u0301/u\u0308\u200b"
    Path("v/caf\u00e9").mkdir(parents=True)
    shutil.copyfile(clip, f"v/{stored}.mp4")
    assert run("extract", "--videos=v", "--store=s", "--views=rgb", "--workers=1")[0] == 0
    assert run("export", "s", typed, "--out=out.npy")[0] == 0
    assert run("preview", "--store=s", f"--videos={json.dumps([typed])}", "--out=sheets")[0] == 0
    Manifest([Video(typed, "x", "a", "", "test")], ["a"]).save(Path("list.csv"))
    assert run("annotate", "--store=s", "--manifest=list.csv")[0] == 0
    assert open_store("s").info(stored).split == "test"
    assert run("export", "s", "cafe\u0301/other", "--out=other.npy")[0] == 1
    assert run("remove", "--store=s", f"--videos={json.dumps([typed])}")[0] == 0
    assert open_store("s").videos == []
