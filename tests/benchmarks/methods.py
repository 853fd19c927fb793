"""What the methods learn on one store at an equal budget: `python -m tests.benchmarks.methods`.

InfoNCE, UberNCE, CMC, CoCLR, ViCC, GOCA, SLIC, DPC and CoCon, on two views and on four, are trained by their small
recipes, or by those for real clips, and evaluated by protocol `clean`, beside their untrained networks. Every network
that is compared has had its weights moved as often: STEPS of its recipes, of which CoCLR and UberNCE spend the first
part on InfoNCE; CMC and GOCA, which train both streams at once, take the larger number. `coclr-rgb-without-coin` is
CoCLR's RGB stage with `self_drop: 0`, from the same start; the stages of OF_VICC, OF_GOCA and OF_SLIC are theirs with
another setting, each from the same weights: of ViCC the single stage that goes on for as many steps as the cross stage
has, and the cross stage's ablations. `views-apart` is CoCon without cooperation and synchronisation. Each runs with
several seeds, of network, order and augmentation; the store stays the same, so the spread says nothing of other videos.

The commands are the ones that a user would type, and are printed. All of it is safe to repeat: what is finished is not
done again. With the synthetic set CoCon takes one core 25 minutes a seed, and 47 on four views.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.views import VIEWS
from train import recipe as recipes
from train.recipe import Recipe, StageSettings

CLUSTERS = {"small": 100, "small-real": 20}  # of SLIC by k-means; FINCH finds its number
STEPS = {"small": {"rgb": 650, "flow": 470}, "small-real": {"rgb": 300, "flow": 120}}
METHODS = ("infonce", "coclr", "ubernce", "cmc", "vicc", "goca", "slic", "dpc", "cocon", "cocon-four-views")
OF_VICC: dict[str, dict[str, object]] = {
    "single-on": {"other": None},
    "prototypes-of-each-stream": {"shared_prototypes": False},
    "other-stream-alone": {"own_stream": False},
    "gradient-of-first": {"gradient_views": "first"},
}
# Flow in RGB's place, as published.
U: dict[str, object] = {"replaced": 0.25, "replacements": {"rgb": [{"view": "flow", "input": "u", "mirror": "plain"}]}}
# Clusters of the trained network's rows, as published.
OWN: dict[str, object] = {"clusterer": None}
# Name -> stage, and what of its settings and sampling is changed.
OF_SLIC: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "slic-flow-every-video-alone": ("flow", {"clusters": "none"}, {"same_video": 1.0}),
    "slic-flow-own-clusters": ("flow", {"clusters": "finch"}, {"same_video": 0.2}),
    "slic-every-video-alone": ("rgb", {**OWN, "clusters": "none"}, {"same_video": 1.0}),
    "slic-own-clusters": ("rgb", OWN, {"same_video": 0.8}),
    "slic-published-positives": ("rgb", OWN, {"same_video": 0.2}),
    "slic-with-u": ("rgb", OWN, {"same_video": 0.2, **U}),
    "slic-with-u-every-video-alone": ("rgb", {**OWN, "clusters": "none"}, {"same_video": 1.0, **U}),
    "slic-with-u-kmeans": ("rgb", {**OWN, "clusters": "spherical_kmeans"}, {"same_video": 0.2, **U}),
    "slic-with-u-labels": ("rgb", {**OWN, "clusters": "labels"}, {"same_video": 0.2, **U}),
}
OF_GOCA: dict[str, dict[str, object]] = {
    "no-prior": {"coupling": "none"},
    "away-from-prior": {"prior_sign": -1},
    "learned-prototypes": {"prototype_kind": "learned"},
    "learned-and-kept-apart": {"prototype_kind": "learned", "separation": 2.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store", type=Path, help="labelled, with the splits train and test; default: the demo's, made anew"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench/methods"), help="recipes, runs and comparison")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", choices=list(STEPS), default="small", help="the folder of the methods' recipes")
    parser.add_argument(
        "--only", nargs="+", metavar="STAGE", help="of a recipe, and what these begin from; default: all"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all steps, for smaller stores")
    arguments = parser.parse_args()
    store = arguments.store or make_store(arguments.out)
    runs = []
    for method in arguments.methods:
        made = at_equal_budget(method, arguments.scale, arguments.recipe, arguments.only)
        recipe = write(made, arguments.out / "recipes" / f"{method}.yaml")
        for seed in arguments.seeds:
            run = arguments.out / f"{method}-{seed}"
            command(
                "train", "pretrain", method=method.partition("-")[0], recipe=recipe, store=store, run=run, seed=seed
            )
            command("eval", "evaluate", run=run, store=store, protocols="[clean]")
            runs.append(run)
    command("eval", "compare", runs=f"[{','.join(map(str, runs))}]", out=arguments.out / "comparison.html")


def at_equal_budget(method: str, scale: float, folder: str = "small", only: Sequence[str] | None = None) -> Recipe:
    """The recipe with the budget's steps; with CoCLR the coin is judged too, with ViCC the other stream and how
    it is used, with GOCA its prior and prototypes, with SLIC its clusters and views."""
    method, _, views = method.partition("-")
    recipe, steps = recipes.load(recipes.find(folder + f"-{views}" * bool(views), method)), STEPS[folder]
    listed = list(recipe.stages)
    if method in ("infonce", "cmc", "goca", "dpc", "cocon"):
        listed = [
            stage.changed(steps=steps.get(getattr(stage.settings, "stream", ""), max(steps.values())))
            for stage in listed
        ]
    else:
        spent = {
            stream: sum(s.steps for s in listed if getattr(s.settings, "stream", "") == stream) for stream in steps
        }
        assert spent == steps, f"{spent}: the recipe of {method} in {folder} has another budget"
    if method == "coclr":
        (place,) = [place for place, stage in enumerate(listed) if stage.name == "coclr-rgb"]
        # Before the stage itself, so that both streams together are those of the recipe.
        listed.insert(place, without_coin(listed[place]))
    if method == "vicc":
        listed = [other for stage in listed for other in [*_of_vicc(stage), stage]]
    if method == "goca":
        [stage] = listed
        changed = {name: stage.settings.changed(**settings) for name, settings in OF_GOCA.items()}
        listed = [*(stage.changed(name=name, settings=settings) for name, settings in changed.items()), stage]
    if method == "cocon":
        [stage] = listed
        apart = stage.settings.changed(cooperation=0.0, synchronisation=0.0)
        listed = [stage.changed(name="views-apart", settings=apart), stage]
    if method == "slic":
        listed = [other for stage in listed for other in [*_of_slic(recipe, stage, CLUSTERS[folder]), stage]]
    if only:
        needed = set(only)
        for stage in reversed(listed):
            needed |= set(stage.start.values()) if stage.name in needed else set()
        listed = [stage for stage in listed if stage.name in needed]
    scaled = [stage.changed(steps=round(scale * stage.steps)) for stage in listed]
    return recipe.changed(stages=scaled)


def _of_vicc(stage: StageSettings) -> list[StageSettings]:
    """The same with other settings, before the stage: of both streams how a single stage goes on, of RGB the rest."""
    if stage.name not in ("vicc-rgb", "vicc-flow"):
        return []
    names = OF_VICC if stage.name == "vicc-rgb" else ["single-on"]
    return [
        stage.changed(
            name=f"{stage.name}-{name}",
            settings=stage.settings.changed(**OF_VICC[name]),
            start={"query": stage.start["query"]} if OF_VICC[name].get("other", 0) is None else stage.start,
        )
        for name in names
    ]


def _of_slic(recipe: Recipe, stage: StageSettings, count: int) -> list[StageSettings]:
    """The same with other clusters, before the stage; where there is no clusterer, none begins."""
    counted = {"slic-with-u-kmeans": {"cluster_count": count}}
    others = [
        stage.changed(
            name=name,
            settings=stage.settings.changed(**settings, **counted.get(name, {})),
            start={role: start for role, start in stage.start.items() if settings.get(role, start)},
            sampling=recipe.sampling_of(stage).changed(**sampling),
        )
        for name, (of, settings, sampling) in OF_SLIC.items()
        if of == stage.name
    ]
    return [other for other in others if other.settings != stage.settings]


def without_coin(stage: StageSettings) -> StageSettings:
    name = f"{stage.name}-without-coin"
    return stage.changed(name=name, settings=stage.settings.changed(self_drop=0.0))


def write(recipe: Recipe, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe.as_dict(), sort_keys=False), encoding="utf-8")
    return path


def make_store(out: Path) -> Path:
    """As `make demo` makes it, and with the masks and key points of what moves."""
    videos, truth, store = out / "videos", out / "truth", out / "store"
    if not store.exists():
        command("pipeline", "synthetic", out=videos, truth=truth)
    views: dict[str, object] = {"flow.estimator": "dis", "flow.short_side": 64, "rgb.short_side": 64}
    views |= {"rgb.chroma": "4:4:4", "segmentation.short_side": 64, "views": ",".join(VIEWS)}
    for view in ("segmentation", "pose"):
        views |= {f"{view}.estimator": "files", f"{view}.running": json.dumps({"folder": str(truth)})}
    command("pipeline", "extract", videos=videos, store=store, dataset="synthetic", **views)
    return store


def command(package: str, name: str, **options: object) -> None:
    """Run a command of ours, shown as it would be typed."""
    given = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    print("$", shlex.join(["python", "-m", package, name, *given]), flush=True)
    subprocess.run([sys.executable, "-m", package, name, *given], check=True)


if __name__ == "__main__":
    main()
