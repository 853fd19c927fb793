"""What pre-training is worth where there are labels: `python -m tests.benchmarks.finetune`.

CoCLR's RGB network, as `make demo` trains it, is fine-tuned and probed end to end, beside the same network from scratch
at two budgets: as many steps as fine-tuning has, and as many as its pre-training and fine-tuning together. Each is
tested by the classifier that its own held-out videos chose, with several seeds; the store stays the same.

The commands are the ones that a user would type, and are printed. All of it is safe to repeat: what is finished is not
done again. Runs of CoCLR that are there already are taken with --pretrained, as `tests.benchmarks.methods` leaves them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from eval import results
from tests.benchmarks.methods import command, make_store, write
from train import recipe as recipes
from train.recipe import Recipe

KINDS = ("finetune", "probe", "scratch", "scratch-long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="labelled, with train and test; default: the demo's, made anew")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/finetune"))
    parser.add_argument("--pretrained", type=Path, help="folder with coclr-0, coclr-1, ...")
    parser.add_argument("--recipe", default="demo", help="of CoCLR: demo or small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    store, out = arguments.store or make_store(arguments.out), arguments.out
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    named = recipes_of(out, recipes.load(recipes.find(arguments.recipe, "coclr")))
    for seed in arguments.seeds:
        start = (arguments.pretrained or out) / f"coclr-{seed}"
        if not arguments.pretrained:
            command("train", "pretrain", method="coclr", recipe=arguments.recipe, store=store, run=start, seed=seed)
        for kind in KINDS:
            run = out / f"{kind}-{seed}"
            given = {} if kind.startswith("scratch") else {"run": start}
            name = "probe" if kind == "probe" else "finetune"
            command("train", name, recipe=named[kind], store=store, out=run, seed=seed, streams="[rgb]", **given)
            command("eval", "evaluate", run=run, store=store, protocols="[clean]")
            records = results.read(run / "results.json")
            metric = "probe_top1" if kind == "probe" else "finetune_top1"
            found[kind] += [record.value for record in records if (record.metric, record.stream) == (metric, "rgb")]
    for kind, values in found.items():
        spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        each = " ".join(f"{100 * value:.1f}" for value in values)
        print(f"{kind:14} {100 * statistics.fmean(values):.1f}{spread}  ({each})")
    (out / "finetune.json").write_text(json.dumps(found, indent=2) + "\n")


def recipes_of(out: Path, pretraining: Recipe) -> dict[str, str]:
    """By kind, a name or a file: what comes along, but for the longer one, which has the steps that RGB had before."""
    scratch = recipes.load(recipes.find("finetune", "small-scratch"))
    before = sum(stage.steps for stage in pretraining.stages if getattr(stage.settings, "stream", "") == "rgb")
    longer = [stage.changed(steps=stage.steps + before) for stage in scratch.stages]
    path = write(scratch.of_stages(longer), out / "recipes" / "scratch-long.yaml")
    return {"finetune": "small", "probe": "small", "scratch": "small-scratch", "scratch-long": str(path)}


if __name__ == "__main__":
    main()
