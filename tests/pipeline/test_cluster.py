"""Where the workers are: on this machine, with a running scheduler, in jobs of SLURM. Signals are in tests/faults."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client

from pipeline import arguments, environment
from pipeline.errors import Refusal, UsageError
from pipeline.extraction.workers import admission, cluster, slurm
from pipeline.extraction.workers.slurm import SlurmSettings
from pipeline.extraction.workers.stopping import run_name, unless_stopped
from pipeline.store import VideoStore
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from tests.faults.clusters import RunningScheduler, fake_slurm
from tests.faults.processes import wait_for
from tests.patience import PATIENCE
from tests.pipeline.reference import content

Run = Callable[..., tuple[int, str, str]]
TOP = Path(__file__).resolve().parents[2]
LIKE_THE_STORE = ("--rgb.quality", "90", "--flow.estimator", "dis")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningScheduler]:
    started = RunningScheduler(tmp_path)
    yield started
    started.close()


def test_the_dashboard_answers() -> None:
    with cluster.workers_for_extraction("", 1, SlurmSettings()) as client:
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(client.dashboard_link, timeout=PATIENCE) as answer:
            assert answer.status == 200
            assert b"bokeh" in answer.read()


def test_workers_of_a_running_scheduler_write_the_same_store(
    run: Run, running: RunningScheduler, synthetic_videos: Path, synthetic_store: VideoStore, tmp_path: Path
) -> None:
    running.add_worker()
    running.add_worker()
    for number, scheduler in enumerate((running.address, running.file)):
        store = tmp_path / f"store{number}"
        code, out, err = run(
            *["extract", "--videos", synthetic_videos, "--store", store, "--scheduler", scheduler, *LIKE_THE_STORE]
        )
        assert code == 0, err
        assert f"flow, {scheduler}, into" in err
        assert "dashboard: http://127.0.0.1:" in err
        assert "stored 12 videos (240 frames)" in out
        assert content(store) == content(synthetic_store.root)


def test_a_run_waits_for_the_first_worker(running: RunningScheduler, synthetic_videos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "extract", "--videos", synthetic_videos, "--store", tmp_path / "store"]
    told = tmp_path / "told"
    with open(told, "w") as errors:
        process = subprocess.Popen([*command, "--scheduler", running.file, *LIKE_THE_STORE], stderr=errors)
    try:
        wait_for(lambda: "there is no worker yet; waiting for the first" in told.read_text(), "its message")
        running.add_worker()
        assert process.wait(timeout=PATIENCE) == 0, told.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("options", "costream", "reason", "remedy"),
    [
        pytest.param(
            *(("--nthreads", "2"), True, "has 2 threads   where: ", "start workers with --nthreads 1"),
            id="several threads",
            marks=pytest.mark.remedy("start workers with --nthreads 1"),
        ),
        pytest.param(
            *((), False, "cannot import what this run needs: ", "give workers this environment (versions included)"),
            id="no costream",
            marks=pytest.mark.remedy("give workers this environment (versions included)"),
        ),
    ],
)
def test_a_worker_that_cannot_do_the_work_is_refused_by_its_host(
    run: Run,
    running: RunningScheduler,
    videos: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    costream: bool,
    reason: str,
    remedy: str,
) -> None:
    (videos / "jump" / "broken.mp4").unlink()
    running.add_worker()
    running.add_worker(*options, costream=costream)
    with Client(running.address) as client:
        client.wait_for_workers(2)
    store = tmp_path / "store"
    command = ("extract", "--videos", videos, "--store", store, "--scheduler", running.file, "--views", "rgb")
    code, _, err = run(*command)
    assert code == 1
    assert "not all workers can do this work:     127.0.0.1 (tcp://127.0.0.1:" in err
    assert reason in err
    assert f"to do: {remedy}" in err
    assert not list((store / "videos").rglob("c"))
    refused = running.processes.pop()  # the other has this environment, and one thread
    refused.kill()
    refused.wait()
    with Client(running.address) as client:
        wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 1, "the worker to be gone")
    code, _, err = run(*command)
    assert code == 0, err


def test_what_a_worker_must_see_and_have(
    tmp_path: Path, extraction_settings: ExtractionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    needs = admission.requirements(tmp_path, store)
    with pytest.raises(Refusal, match="cannot read the store .*: there is no store"):
        admission.require_fit(*needs)
    create_store(store, extraction_settings)
    with pytest.raises(Refusal, match="cannot read the folder of videos .*none"):
        admission.require_fit(*admission.requirements(tmp_path / "none", store))
    with monkeypatch.context() as patch:
        patch.setattr(environment, "versions", lambda: {"numpy": "1.0"})
        with pytest.raises(Refusal, match=r"has .*numpy 1\.0 instead of ") as refused:
            admission.require_fit(*needs)
    assert refused.value.where
    able = json.dumps(extraction_settings.as_dict(running=True))
    assert admission.when_fit(needs, able, max, 1, 2) == 2


@pytest.mark.remedy("wait until they are through")
def test_a_video_that_an_earlier_run_left_with_a_worker_is_waited_for(
    running: RunningScheduler, tmp_path: Path, extraction_settings: ExtractionSettings
) -> None:
    running.add_worker()
    store, pipe = tmp_path / "store", tmp_path / "pipe"
    create_store(store, extraction_settings)
    os.mkfifo(pipe)
    said: list[str] = []
    with Client(running.address) as client:
        client.wait_for_workers(1)
        left = client.submit(unless_stopped, run_name(store), "walk/a", Path.read_text, pipe)
        with (
            open(pipe, "w"),  # is open as soon as the worker reads
            pytest.raises(Refusal, match="still at 1 video of an earlier run, as 'walk/a'"),
        ):
            admission.admit(client, tmp_path, store, said.append)
        left.result()
        admission.admit(client, tmp_path, store, said.append)
    open_to_all, deadly = said
    assert "runs code for whoever reaches its port" in open_to_all
    assert "will kill 8 before it lands in quarantine" in deadly


def test_choices_of_workers_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    cluster.check_scheduler("", 3)
    cluster.check_scheduler("slurm", 3)
    cluster.check_scheduler("tls://host:8786", 0)
    with pytest.raises(UsageError, match="no address"):
        cluster.check_scheduler("slrum", 0)
    with pytest.raises(UsageError, match="has the workers it has"):
        cluster.check_scheduler("tcp://host:8786", 3)
    for memory in ("much", "", "0", "-4GB", "4", "1e30GB", "nanGB"):
        with pytest.raises(UsageError, match=f"slurm memory '{memory}' is no size"):
            SlurmSettings(memory=memory).for_workers(1)
    for walltime in ("", "x", "-1:00:00", "1e9", "12:0", "1:2:3:4"):
        with pytest.raises(UsageError, match=f"slurm walltime '{walltime}' is no length of time"):
            SlurmSettings(walltime=walltime).for_workers(1)
    for walltime in ("30", "30:00", "12:00:00", "2-0", "2-12:30", "2-12:30:00"):
        SlurmSettings(walltime=walltime).for_workers(1)


@pytest.mark.parametrize("name", ["queue", "account", "walltime", "python", "interface", "logs", "directives", "setup"])
def test_no_setting_of_slurm_adds_a_line_to_the_job(name: str) -> None:
    for text in ("a\n#SBATCH --uid=0", "a\rb", "a\x1b[31m"):
        settings = SlurmSettings(**{name: (text,) if name in ("directives", "setup") else text})  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"(?s){name} is not one line of text.*write it in one line"):
            arguments.check_fields(settings, "--slurm.")


def test_a_network_interface_that_is_not_here_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "slurm"), prepend=os.pathsep)
    with (
        pytest.raises(UsageError, match='unknown network interface "nosuch0"(?s:.)*known: .*lo'),
        slurm.cluster(SlurmSettings(interface="nosuch0"), 1),
    ):
        pass


def test_a_job_asks_for_what_its_workers_need() -> None:
    settings = SlurmSettings("short", "physics", "01:00:00", 8, "2GiB", ("--exclude=node7",), ("module load gcc",))
    lines = slurm.job_script(settings, workers=20).splitlines()
    for line in (
        "#SBATCH -p short",
        "#SBATCH -A physics",
        "#SBATCH -t 01:00:00",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=16G",
        "#SBATCH --exclude=node7",
        "module load gcc",
        "export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False",
    ):
        assert line in lines
    (worker,) = (line for line in lines if "dask_worker" in line)
    assert worker.startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://")
    assert "--nthreads 1 --memory-limit 2.00GiB --nworkers 8 --nanny" in worker
    assert "#SBATCH --cpus-per-task=3" in slurm.job_script(settings, workers=3)
    assert "\n'/opt/my python' -m distributed" in slurm.job_script(SlurmSettings(python="/opt/my python"), 1)


def test_jobs_leave_interrupts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "dask_jobqueue"]:
        monkeypatch.delitem(sys.modules, name)
    before = signal.getsignal(signal.SIGINT)
    slurm.job_script(SlurmSettings(), 1)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_jobs_of_slurm_write_the_same_store(
    run: Run, synthetic_videos: Path, synthetic_store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "slurm"), prepend=os.pathsep)
    store = tmp_path / "store"
    options = ("--scheduler", "slurm", "--workers", 3, "--slurm.cores", 2, "--slurm.queue", "short")
    code, out, err = run("extract", "--videos", synthetic_videos, "--store", store, *options, *LIKE_THE_STORE)
    assert code == 0, err
    assert "3 workers in jobs of slurm" in err
    assert "stored 12 videos (240 frames)" in out
    assert content(store) == content(synthetic_store.root)
    scripts = [path.read_text() for path in (tmp_path / "slurm").glob("job.*")]
    assert len(scripts) == 2
    assert all("#SBATCH -p short" in script and "--nworkers 2" in script for script in scripts)
    assert len((tmp_path / "slurm" / "cancelled").read_text().split()) == 2


def test_workers_are_reached_only_with_the_certificate_of_the_run() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with cluster.workers_for_extraction("", 1, SlurmSettings()) as client:
        address = cluster.address_of(client)
        assert address.startswith("tls://127.0.0.1:")
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        with socket.create_connection(place, timeout=20) as plain:
            plain.sendall(b"hello, this is no TLS at all\n" * 8)
            assert answer(plain)[:1] in (b"", b"\x15")  # at most the alert that ends it
        with socket.create_connection(place, timeout=20) as plain, stranger.wrap_socket(plain) as wrapped:
            assert answer(wrapped) == b""


def answer(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_a_scratch_folder_that_is_none_is_refused(
    run: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the refusal says helps."""
    (videos / "jump" / "broken.mp4").unlink()
    command = ["extract", "--videos", videos, "--store", tmp_path / "store", "--views", "rgb", "--workers", 1]
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(tmp_path / "gone"))
    with dask.config.set(dask.config.collect()):  # as a process that starts now has it
        code, _, err = run(*command)
    assert code == 1
    assert "Traceback" not in err
    assert f"where: {tmp_path / 'gone'}" in err
    monkeypatch.setenv(err.rpartition("export ")[2].partition("=")[0], str(tmp_path))
    with dask.config.set(dask.config.collect()):
        assert run(*command)[0] == 0


@pytest.mark.slow
@pytest.mark.remedy("give both the same environment, as docs/clusters.md tells", told=True)
def test_a_scheduler_has_a_certificate_as_the_documentation_says(
    synthetic_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (written,) = re.findall(r"```sh\n(test -f key.pem .*?)```", (TOP / "docs" / "clusters.md").read_text(), re.DOTALL)
    given = subprocess.run(
        ["sh", "-ec", f"{written}\nenv -0"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    plain = dict(os.environ)
    for variable in given.split("\0"):
        name, _, value = variable.partition("=")
        if name.startswith("DASK_"):
            monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "pipeline", "extract", "--videos", synthetic_videos, "--views", "rgb"]
    secured = RunningScheduler(tmp_path)
    try:
        assert secured.address.startswith("tls://")
        secured.add_worker()
        command += ["--scheduler", secured.file, "--store"]
        stranger = subprocess.run([*command, tmp_path / "store"], env=plain, capture_output=True, text=True)
        assert stranger.returncode == 1
        assert "the Dask scheduler has a certificate, and not both have it" in stranger.stderr
        assert "give both the same environment, as docs/clusters.md tells" in stranger.stderr
        assert "Traceback" not in stranger.stderr
        done = subprocess.run([*command, tmp_path / "store"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "whoever reaches its port" not in done.stderr
    finally:
        secured.close()
