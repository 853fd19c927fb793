"""The commands of stage two; `python -m train COMMAND --help` tells each one's options."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

from pipeline.arguments import Input, Name, Names, Number, OutputFile, OutputFolder, Positive, Seed, StorePlace, Text
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore, open_store
from train import exports, imported, stages
from train import finetune as finetuning
from train import recipe as recipes
from train import verify as verification
from train.callbacks.divergence import Diverged
from train.console import LEADER, console, tell
from train.hardware import Hardware
from train.recipe import Recipe
from train.show import preview as previews
from train.stage_data import refuse_without_split, training_set_of
from train.training_set import TrainingSet


def pretrain(
    method: Name,
    store: StorePlace,
    run: OutputFolder,
    recipe: Name = "small",
    seed: Seed | None = None,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
    time_limit: Text | None = None,
    profile: Number = 0,
    annotations: Text = "",
    use_all: bool = False,
) -> int:
    """Pre-train on a store, stage by stage as a recipe says. Safe to repeat: a stopped run continues at the exact step.

    SIGINT (Ctrl-C), SIGTERM and the time limit finish the step, write a checkpoint and stop, with the exit codes 130,
    143 and 124; the same command goes on. A loss or gradient that is not finite ends the run with exit code 1; the last
    checkpoint from before stays.

    Args:
        method: What is trained, e.g. infonce.
        store: Folder of the store, or its URL.
        run: Folder of the run: recipe, checkpoints, metrics.
        recipe: A YAML file, or the name of a folder in train/recipes that holds one file per method.
        seed: Replaces the recipe's seed.
        hardware: What the run is executed on.
        time_limit: Stop in time, so long after the start: HH:MM:SS, or hours such as 23.5. Leave some minutes for the
            last step and the checkpoint when a job is killed at a certain time.
        profile: Profile so many steps of each stage that is trained now: RUN/<stage>/profile/trace.json, for
            ui.perfetto.dev, and the dearest operators as a table.
        annotations: The annotation set of the store whose labels, recordings and splits count; by default that of
            extraction, or the only one.
        use_all: Train on all videos of a store that has labels and no split, though none is then left to test with.
    """
    deadline = time.monotonic() + seconds(time_limit) if time_limit is not None else math.inf
    opened = open_store(store, annotations)
    loaded = finetuning.begun_with(_loaded(recipe, method, seed), None, [])
    return _run(loaded, opened, run, hardware, deadline, profile, use_all)


def finetune(
    store: StorePlace,
    run: Input | None = None,
    recipe: Name = "small",
    out: OutputFolder | None = None,
    streams: Names | None = None,
    seed: Seed | None = None,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
    time_limit: Text | None = None,
    profile: Number = 0,
    annotations: Text = "",
    use_all: bool = False,
) -> int:
    """Train networks of a run further, on labels. Safe to repeat: as `pretrain`, which it is in all else.

    Each stage of the recipe begins with the last network of its stream in the run, and a fresh classifier; what the
    recipe leaves open about the network is the run's. Recipes: small (any store, minutes on two cores), and the
    published ones (coclr, vicc, goca, slic, cocon, dpc); small-scratch and scratch (CoCLR's supervised network) begin
    with random weights and take no run. Evaluation tests the classifiers: `make evaluate RUN=OUT STORE=`.

    Args:
        store: Folder of the store, or its URL; it needs labels and the split train.
        run: Folder of the run that is fine-tuned, pre-trained or imported.
        recipe: A YAML file, or the name of one in train/recipes/finetune.
        out: Folder of the new run; by default that of `run`, with -finetune behind its name.
        streams: That are trained; by default all of the recipe that the run has.
        seed, hardware, time_limit, profile, annotations, use_all: As `pretrain` has them.
    """
    return _classify(
        "finetune", store, run, recipe, out, streams, seed, hardware, time_limit, profile, annotations, use_all
    )


def probe(
    store: StorePlace,
    run: Input | None = None,
    recipe: Name = "small",
    out: OutputFolder | None = None,
    streams: Names | None = None,
    seed: Seed | None = None,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
    time_limit: Text | None = None,
    profile: Number = 0,
    annotations: Text = "",
    use_all: bool = False,
) -> int:
    """Train a linear probe end to end, as published: the run's networks stay as they are, in evaluation mode, and a
    classifier learns from augmented clips. All else is as in `finetune`.

    The probe of `evaluate`, a logistic regression on stored features, is quicker and another number.

    Args:
        store, run: As `finetune` has them.
        recipe: A YAML file, or the name of one in train/recipes/probe.
        out: Folder of the new run; by default that of `run`, with -probe behind its name.
        streams: That are probed; by default all of the recipe that the run has.
        seed, hardware, time_limit, profile, annotations, use_all: As `pretrain` has them.
    """
    return _classify(
        "probe", store, run, recipe, out, streams, seed, hardware, time_limit, profile, annotations, use_all
    )


def _classify(
    folder: str,
    store: str,
    run: Path | None,
    recipe: str,
    out: Path | None,
    streams: list[str] | None,
    seed: int | None,
    hardware: Hardware,
    time_limit: str | None,
    profile: int,
    annotations: str,
    use_all: bool,
) -> int:
    """`folder`: of the recipes."""
    deadline = time.monotonic() + seconds(time_limit) if time_limit is not None else math.inf
    opened = open_store(store, annotations)
    loaded = recipes.load(finetuning.find(folder, recipe), seed)
    begun = finetuning.begun_with(loaded, run, streams or [])
    if out is None and run is None:
        raise UsageError("there is no folder for the new run", where="out", remedy="--out runs/scratch")
    folder_of_it = out or run.with_name(f"{run.name}-{folder}")  # type: ignore[union-attr]
    return _run(begun, opened, folder_of_it, hardware, deadline, profile, use_all)


def _run(
    recipe: Recipe, store: VideoStore, run: Path, hardware: Hardware, deadline: float, profile: int, use_all: bool
) -> int:
    loaded = recipe.of_classes(store.classes)
    training_set = _checked(loaded, store, hardware, use_all)
    with stages.only_trainer(run, loaded):
        _tell_of_beginning(loaded, store, training_set, run)
        return _train(loaded, store, run, hardware, deadline, profile)


def _train(loaded: Recipe, opened: VideoStore, run: Path, hardware: Hardware, deadline: float, profile: int) -> int:
    """All stages; the exit code."""
    began = time.perf_counter()
    for stage in loaded.stages:
        try:
            newly = stages.run_stage(loaded, stage, opened, run, hardware, deadline, profile)
        except stages.Stopped as stop:
            tell(
                f"stopped by {stop.reason} in stage {stage.name} at step {stop.step}; the same"
                f" command continues there: {stages.checkpoint_path(run, stage.name)}"
            )
            # Lightning kills the leader when a follower fails.
            return stop.exit_code if LEADER else 0
        except Diverged:
            if LEADER:
                raise
            return 0
        if not newly:
            tell(f"stage {stage.name} was finished already")
    spent = time.perf_counter() - began
    console.print(f"{_doing(loaded)[1]} {len(loaded.stages)} stages in {spent:.0f} s: {run}")
    return 0


def _doing(recipe: Recipe) -> tuple[str, str]:
    """What is done, and what has been, in words."""
    on_labels = all(stage.settings.needs_labels for stage in recipe.stages)
    return ("training on labels", "trained") if on_labels else ("pre-training", "pre-trained")


def _checked(recipe: Recipe, store: VideoStore, hardware: Hardware, use_all: bool) -> TrainingSet:
    """The videos of the first stage; refuses what cannot be meant before anything is written."""
    if not use_all:
        refuse_without_split(store, recipe)
    training_set = training_set_of(recipe, recipe.stages[0], store)
    stages.check(recipe, store, hardware)
    return training_set


def _tell_of_beginning(recipe: Recipe, store: VideoStore, training_set: TrainingSet, run: Path) -> None:
    names = ", ".join(stage.name for stage in recipe.stages)
    told_of = f"{len(training_set)} videos of {store.root}, into {run}"
    tell(f"{_doing(recipe)[0]} {recipe.title!r} (stages: {names}) on {told_of}")
    for told in filter(None, [store.table.told_of_missing(), store.annotated.told()]):
        tell(told)
    if training_set.empty:
        tell(training_set.told_of_empty())
    if training_set.unlabelled:
        tell(training_set.told_of_unlabelled())
    if training_set.short:
        tell(training_set.told_of_short(recipe.sampling_of(recipe.stages[0])))


def _loaded(recipe: str, method: str, seed: int | None) -> Recipe:
    path = recipes.find(recipe, method)
    loaded = recipes.load(path, seed)
    if method not in [stage.method for stage in loaded.stages]:
        remedy = f"METHOD={loaded.stages[-1].method}, or another recipe"
        raise UsageError(f"no stage of the recipe trains {method!r}", where=str(path), remedy=remedy)
    return loaded


def seconds(time_limit: str) -> float:
    """A limit as SLURM writes it, HH:MM:SS, or hours. Raises UsageError."""
    if clock := re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", time_limit):
        hours, minutes, rest = map(int, clock.groups())
        return 3600 * hours + 60 * minutes + rest
    if re.fullmatch(r"\d+(\.\d+)?", time_limit):
        return 3600 * float(time_limit)
    raise UsageError(
        f"{time_limit!r} is no length of time", where="time_limit", remedy="HH:MM:SS, or hours such as 23.5"
    )


def preview(
    method: Name,
    store: StorePlace,
    recipe: Name = "small",
    stage: Text = "",
    epoch: Number = 0,
    batch: Number = 0,
    videos: Positive = 8,
    seed: Seed | None = None,
    out: OutputFile = Path("preview.html"),
    annotations: Text = "",
) -> None:
    """Show what the network will see: film strips of a batch of every stage, augmented and normalised, as HTML.

    The batch is the one that `pretrain` with the same recipe, store and seed trains on at that place: the same videos,
    frames, windows, mirrors, blurs and colours. Each clip stands beside what was drawn for it. Look at it before a long
    run, after every change of the augmentation, and when a stage does not learn.

    Examples: `preview --method infonce --store stores/mine`; `preview --method coclr --recipe ucf101 --store
    stores/ucf101 --stage flow --epoch 3 --out flow.html`.

    Args:
        method: What would be trained, e.g. infonce.
        store: Folder of the store, or its URL.
        recipe: A YAML file, or the name of a folder in train/recipes that holds one file per method.
        stage: Name of a stage of the recipe; by default every one.
        epoch: Counted from 0; other epochs draw other frames and pixels of the same videos.
        batch: Within the epoch, from 0.
        videos: How many videos of the batch are shown.
        seed: Replaces the recipe's seed.
        out: The page to write; it needs no other file.
        annotations: As `pretrain` has it.
    """
    loaded = recipes.load(recipes.find(recipe, method), seed)
    name, shown = previews.write_preview(loaded, stage, open_store(store, annotations), epoch, batch, videos, out)
    console.print(f"showed {shown} videos of batch {batch} of epoch {epoch}, stage {name}: {out}")


def verify(run: Input) -> int:
    """Check every byte of a run's checkpoints, features and results, and that its parts belong together.

    The exit code is 1 if anything is damaged; each problem is a line with what to do.

    Args:
        run: Folder of the run.
    """
    checked = 0
    problems: list[Refusal] = []
    for problem in verification.verify(run):
        checked += 1
        if problem is not None:
            problems.append(problem)
            console.print(str(problem))
    whole = "all whole" if not problems else f"{len(problems)} damaged"
    console.print(f"checked {checked} files of {run}: {whole}")
    return 1 if problems else 0


def import_files(
    run: OutputFolder,
    rgb: Input | None = None,
    flow: Input | None = None,
    layout: Name = "auto",
    pretraining: Text = "",
    classes: Input | None = None,
) -> None:
    """Make a run of published checkpoints, to be evaluated, exported, or started from (`start` in a recipe).

    The files do not say whether they are of RGB or flow: that is what the options are for. (GOCA's hold both: give the
    file twice, which makes one stage of both, prototypes included.) They are read without running code in them; every
    tensor is checked by name and shape. Known: the layouts of CoCLR (InfoNCE, UberNCE and CoCLR on S3D and on its
    ResNet-50), ViCC (S3D and its R(2+1)D), GOCA (R(2+1)D-18 and S3D), SLIC (R3D-18), and DPC and CoCon (2D3D-ResNets
    with a ConvGRU); and linear probes and fine-tuned networks.

    Networks are taken whole, with their heads. Evaluation compares videos as the paper does: by the backbone's feature,
    which GOCA pools to 1x2x2, or, of SLIC, by what the projection head gives. Other prototypes are left out, which is
    told. A stage that starts from a network with a head of another form takes the backbone, and begins with a fresh
    head.

    Args:
        run: New folder, with a stage named rgb, one named flow, or both; or with one named goca.
        rgb: Published file of an RGB network.
        flow: Published file of a flow network.
        layout: auto, or coclr, vicc, goca, slic, dpc, cocon. Needed for DPC's network with running statistics, which is
            told from CoCon's by nothing.
        pretraining: The data set that the files' networks were trained on, such as ucf101 or kinetics400: the report
            then shows the papers' numbers of such networks beside theirs. SLIC's networks are shown pixels that are
            normalised as on that data set.
        classes: Of a linear probe or fine-tuned network, in the order of its logits, which its file does not say: a
            list of one class a line, such as classInd.txt. By default the order of the store that is evaluated.
    """
    given = {stream: path for stream, path in (("rgb", rgb), ("flow", flow)) if path}
    imported.import_run(given, run, layout, pretraining, classes)
    console.print(f"made a run of {', '.join(f'{path} ({stream})' for stream, path in given.items())}: {run}")


def export(checkpoint: Input, out: OutputFile, stream: Text = "", layout: Text = "") -> None:
    """Write a checkpoint's network for other code, and a JSON and a card (Markdown) beside it that say what it is.

    The ending of --out decides: .safetensors or .pt, the bare backbone's weights; .pt2, the network as a program of
    torch.export, which takes normalised clips, gives rows, and runs where costream is not installed.

    With --layout, the whole checkpoint as the papers' authors publish theirs, for their scripts.

    Args:
        checkpoint: RUN/<stage>/checkpoints/last.ckpt
        out: File to write, e.g. backbone.safetensors, backbone.pt or network.pt2.
        stream: rgb or flow: whose backbone.
        layout: coclr, vicc, goca or slic.
    """
    if bool(stream) == bool(layout):
        raise UsageError(
            "either a stream's backbone or a whole layout is written", remedy="--stream rgb, or --layout coclr"
        )
    if layout:
        imported.export_published(checkpoint, layout, out)
        console.print(f"wrote {checkpoint} in the layout of {layout}: {out}")
        return
    exports.export(checkpoint, stream, out)
    what = "network" if out.suffix == ".pt2" else "backbone"
    beside = f"{out.with_suffix('.json')} and {out.with_suffix('.md')}"
    console.print(f"wrote the {stream} {what} to {out}, and what it is to {beside}")
