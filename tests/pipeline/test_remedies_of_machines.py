"""What refusals of workers, GPUs, SLURM, packages and other versions say is to be done helps: each is done here, with
stand-ins for what this machine lacks."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest

from pipeline import storage, synthetic
from pipeline.commands import console
from pipeline.errors import Refusal, UsageError
from pipeline.extraction.workers import cluster, gpus, slurm
from pipeline.extraction.workers.slurm import SlurmSettings
from pipeline.extraction.workers.stopping import run_name
from pipeline.importers import folder
from pipeline.store import layout, open_store
from pipeline.store.catalogue import save as save_catalogue
from pipeline.store.settings import settings_hash
from pipeline.store.verify import verify
from pipeline.views import VIEWS
from tests.faults import small
from tests.faults.clusters import RunningScheduler, fake_slurm
from tests.pipeline.fake_gpu import fake_gpus
from tests.pipeline.reference import content, run_here

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.remedy("see why `nvidia-smi` or CUDA_VISIBLE_DEVICES does not list one, or take another FLOW=")
@pytest.mark.usefixtures("in_this_process")
def test_a_gpu_is_made_visible_or_another_flow_is_taken(run: Run, tmp_path: Path) -> None:
    with fake_gpus("GPU-one") as machine:
        machine.setenv("CUDA_VISIBLE_DEVICES", "-1")
        machine.setattr("torch.cuda.device_count", lambda: 0)
        machine.setattr(gpus, "SpecCluster", lambda workers, **_: workers)  # a worker takes long to start
        with pytest.raises(Refusal, match="PyTorch finds none"):
            gpus.gpu_cluster(1, 1)
        machine.setenv("CUDA_VISIBLE_DEVICES", "GPU-one")
        machine.setattr("torch.cuda.device_count", lambda: 1)
        assert gpus.gpu_cluster(1, 1)[0]["options"]["env"] == {"CUDA_VISIBLE_DEVICES": "GPU-one"}
    (tmp_path / "videos").mkdir()
    synthetic.write_mp4(tmp_path / "videos" / "a.mp4", synthetic.video(synthetic.CLASSES[0], 0, 3, 32, 48))
    places = ("--videos", tmp_path / "videos", "--store", tmp_path / "store")
    assert run("extract", *places, "--flow.estimator", "dis", "--workers", 1)[0] == 0


@pytest.mark.gpu
def test_on_a_gpu_there_are_workers_for_it() -> None:
    with cluster.workers_for_extraction("", 1, SlurmSettings(), "gpus") as client:
        assert len(client.nthreads()) == 1


@pytest.mark.remedy(
    "run this on a machine of the SLURM cluster that submits jobs",
    "--dry_run true prints the job; --slurm.queue, --slurm.account and others change it",
)
@pytest.mark.usefixtures("sampled_here")
def test_jobs_are_submitted_where_sbatch_is_and_changed_by_options(
    run: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an sbatch that runs nothing."""
    (videos / "jump" / "broken.mp4").unlink()
    command = ("extract", "--videos", videos, "--store", tmp_path / "store", "--views", "rgb", "--scheduler", "slurm")
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here" in run(*command)[2]
    fake_slurm(tmp_path / "slurm")
    (tmp_path / "slurm" / "sbatch").write_text(
        "#!/bin/sh\ngrep -q 'SBATCH -p short' \"$1\" || { echo 'invalid partition' >&2; exit 1; }\n"
        "echo Submitted batch job 99999999\n"
    )
    (tmp_path / "slurm" / "scancel").write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}{os.pathsep}{path}")
    code, _, err = run(*command, "--workers", 1)
    assert code == 1
    assert "invalid partition" in err
    changed = ("--slurm.queue", "short")
    for more, there in (((), False), (changed, True)):
        code, out, err = run(*command, "--workers", 1, "--dry_run", "true", *more)
        assert code == 0, err
        assert "#SBATCH" in out + err
        assert ("SBATCH -p short" in out + err) == there
    with slurm.cluster(SlurmSettings(queue="short"), 1) as started:
        assert len(started.worker_spec) == 1


@pytest.mark.remedy("pip install 'costream[slurm]', or: pip install dask-jobqueue==0.9.0")
def test_dask_jobqueue_is_installed_as_the_project_pins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that works is taken for granted; that the extra exists and brings this version is not."""
    with monkeypatch.context() as without:
        for name in [name for name in sys.modules if name.partition(".")[0] == "dask_jobqueue"]:
            without.delitem(sys.modules, name)
        without.setitem(sys.modules, "dask_jobqueue", None)
        with pytest.raises(Refusal, match="is not installed"):
            slurm.job_script(SlurmSettings(), 1)
    assert "slurm" in extras() and "dask-jobqueue==0.9.0" in extras()["slurm"]
    assert "#SBATCH" in slurm.job_script(SlurmSettings(), 1)


def extras() -> dict[str, list[str]]:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]["optional-dependencies"]


@pytest.mark.remedy("s3:// needs `pip install 'costream[s3]'`; other kinds need the fsspec package of their own")
def test_stores_in_s3_are_reached_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known = sys.modules["fsspec.registry"]
    monkeypatch.delitem(known._registry, "s3", raising=False)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "s3fs", None)
        with pytest.raises(UsageError, match="stores at s3:// cannot be reached"):
            storage.location("s3://bucket/a")
    assert any(package.startswith("s3fs") for package in extras()["s3"])
    installed = types.ModuleType("s3fs")
    installed.__version__ = "2026"  # type: ignore[attr-defined]
    installed.S3FileSystem = type("S3FileSystem", (known.get_filesystem_class("memory"),), {"protocol": "s3"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "s3fs", installed)
    assert str(storage.location("s3://bucket/a")) == "s3://bucket/a"


@pytest.mark.remedy("make that folder, or name another one: export")
def test_a_scratch_folder_is_made_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with dask.config.set({"temporary-directory": str(tmp_path / "file")}):
        with pytest.raises(Refusal) as refused, cluster._scratch_folder():
            pass
        (tmp_path / "file").unlink()
        (tmp_path / "file").mkdir()
        with cluster._scratch_folder():
            pass
    name, _, _ = refused.value.remedy.partition("export ")[2].partition("=")
    named = dask.config.collect(paths=[], env={name: str(tmp_path)})
    assert dask.config.get("temporary-directory", config=named) == str(tmp_path)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningScheduler]:
    started = RunningScheduler(tmp_path)
    yield started
    started.close()


@pytest.mark.remedy(
    "start it with `dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`",
    "give the file that `dask scheduler --scheduler-file FILE` has written",
)
def test_a_scheduler_is_started_and_its_file_given(
    running: RunningScheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(Refusal), cluster.workers_for_extraction("tcp://127.0.0.1:1", 1, SlurmSettings()):
        pass
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError):
        cluster.check_scheduler(str(tmp_path / "other.json"), 0)
    monkeypatch.undo()
    cluster.check_scheduler(str(running.file), 0)
    for scheduler in (running.address, str(running.file)):
        with cluster.workers_for_extraction(scheduler, 1, SlurmSettings()) as client:
            assert run_name(tmp_path) and client.scheduler_info()["address"] == running.address


@pytest.mark.remedy("see whether it answers, has room and may be used by you; run the same command again", told=True)
def test_a_disk_that_fails_is_told_and_answers_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it does; what is no disk's failure is a fault of ours, and shows where."""
    failures = [errno.ENOENT, errno.ESTALE, errno.EIO]

    def command() -> None:
        """Look."""
        if len(failures) > 1:
            raise OSError(code := failures.pop(), os.strerror(code), "/mnt/a")

    monkeypatch.setattr(sys, "argv", ["program", "look"])
    for code, told in ((1, "Input/output error"), (1, "Stale file handle"), (0, "")):
        assert console.main({"look": command}, "", "program") == code
        wanted = f"program look: a disk fails: {told}\n  where: /mnt/a\n  to do: " if told else ""
        assert capsys.readouterr().err.startswith(wanted)
    failures.append(errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        console.main({"look": command}, "", "program")


@pytest.mark.remedy("move its folder to", "or delete this file and extract again")
def test_a_misplaced_folder_is_moved_back_or_extracted_again(videos: Path, store: Path, tmp_path: Path) -> None:
    before = content(store)
    wrong = layout.video_folder(store, "walk/z")

    def refused() -> Refusal:
        layout.video_folder(store, "walk/a").rename(wrong)
        layout.catalogue_path(store).unlink()
        with pytest.raises(Refusal, match="lies in another video's folder") as told:
            save_catalogue(store)
        assert Path(told.value.where).parent == wrong
        return told.value

    place = refused().remedy.partition("move its folder to '")[2].partition("'")[0]
    wrong.rename(store / "videos" / place)
    save_catalogue(store)
    assert content(store) == before
    Path(refused().where).unlink()
    assert run_here(folder.read(videos), videos, store, small.SMALL).stored == 1
    assert open_store(store).videos == ["jump/c", "walk/a", "walk/b"]
    assert not any(damage for _, _, damage in verify(open_store(store)))


@pytest.mark.remedy("read it with a later costream", "read it with a costream that has this view")
def test_what_a_later_costream_wrote_is_read_with_a_later_one(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = store / layout.RECORD
    attributes = layout.attributes_of(root.read_bytes())
    assert attributes is not None
    facts = {key: value for key, value in attributes.items() if key != "digest"}
    root.write_bytes(layout.group({layout.ATTRIBUTE: layout.seal(facts | {"schema": layout.SCHEMA + 1})}))
    with pytest.raises(Refusal, match="schema version"):
        open_store(store)
    with monkeypatch.context() as later:
        later.setattr(layout, "SCHEMA", layout.SCHEMA + 1)
        assert len(open_store(store).videos) == 3
    settings = {**facts["settings"], "toy": facts["settings"]["rgb"]}
    with_a_view = facts | {"settings": settings, "settings_hash": settings_hash(settings)}
    root.write_bytes(layout.group({layout.ATTRIBUTE: layout.seal(with_a_view)}))
    with pytest.raises(Refusal, match="has a view 'toy'"):
        open_store(store)
    monkeypatch.setitem(VIEWS, "toy", VIEWS["rgb"])
    assert len(open_store(store).videos) == 3


@pytest.mark.remedy("restore it from a copy; another store made with the same settings has the same file")
def test_a_stores_own_record_is_restored_from_another_store(videos: Path, store: Path, tmp_path: Path) -> None:
    whole = (store / layout.RECORD).read_bytes()
    (store / layout.RECORD).write_bytes(whole[:-9] + b"otherwise")
    with pytest.raises(Refusal):
        open_store(store)
    other = small.store(videos, tmp_path / "other")
    shutil.copy(other / layout.RECORD, store / layout.RECORD)
    assert (store / layout.RECORD).read_bytes() == whole
    assert len(open_store(store).videos) == 3
