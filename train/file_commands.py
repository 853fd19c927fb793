"""The commands of stage two that train nothing: they check, read and write the files of runs."""

from __future__ import annotations

from pipeline.arguments import Input, Name, OutputFile, OutputFolder, Text
from pipeline.errors import Refusal, UsageError, counted
from train import exports, imported
from train import verify as verification
from train.console import console


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
    console.print(f"checked {counted(checked, 'file')} of {run}: {whole}")
    return 1 if problems else 0


def import_files(
    run: OutputFolder,
    rgb: Input | None = None,
    flow: Input | None = None,
    segmentation: Input | None = None,
    pose: Input | None = None,
    layout: Name = "auto",
    pretraining: Text = "",
    classes: Input | None = None,
) -> None:
    """Make a run of published checkpoints, to be evaluated, exported, or started from (`start` in a recipe).

    The files do not say which view they are of: that is what the options are for. (GOCA's hold RGB and flow: give the
    file twice, which makes one stage of both, prototypes included.) They are read without running code in them; every
    tensor is checked by name and shape. Known: the layouts of CoCLR (InfoNCE, UberNCE and CoCLR on S3D and on its
    ResNet-50), ViCC (S3D and its R(2+1)D), GOCA (R(2+1)D-18 and S3D), SLIC (R3D-18), and DPC and CoCon (2D3D-ResNets
    with a ConvGRU); and linear probes and fine-tuned networks.

    Networks are taken whole, with their heads. Evaluation compares videos as the paper does: by the backbone's feature,
    which GOCA pools to 1x2x2, or, of SLIC, by what the projection head gives. Other prototypes are left out, which is
    told. A stage that starts from a network with a head of another form takes the backbone, and begins with a fresh
    head.

    Args:
        run: New folder, with a stage for each file, named by its view; or with one named goca.
        rgb: Published file of an RGB network.
        flow: Published file of a flow network.
        segmentation: CoCon's of masks of people.
        pose: CoCon's of their key points.
        layout: auto, or coclr, vicc, goca, slic, dpc, cocon. Needed for DPC's network with running statistics, which is
            told from CoCon's by nothing.
        pretraining: The data set that the files' networks were trained on, such as ucf101 or kinetics400: the report
            then shows the papers' numbers of such networks beside theirs. SLIC's networks are shown pixels that are
            normalised as on that data set.
        classes: Of a linear probe or fine-tuned network, in the order of its logits, which its file does not say: a
            list of one class a line, such as classInd.txt. By default the order of the store that is evaluated.
    """
    files = {"rgb": rgb, "flow": flow, "segmentation": segmentation, "pose": pose}
    given = {stream: path for stream, path in files.items() if path}
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
        stream: rgb, flow, segmentation or pose: whose backbone; with a layout that has a file for each stream, which.
        layout: coclr, vicc, goca, slic, dpc or cocon; the last two have a file for each stream.
    """
    if bool(stream) == bool(layout) and layout not in imported.OF_ONE_STREAM:
        raise UsageError(
            "either a stream's backbone or a whole layout is written", remedy="--stream rgb, or --layout coclr"
        )
    if layout:
        imported.export_published(checkpoint, layout, out, stream)
        console.print(f"wrote {checkpoint} in the layout of {layout}: {out}")
        return
    exports.export(checkpoint, stream, out)
    what = "network" if out.suffix == ".pt2" else "backbone"
    beside = f"{out.with_suffix('')}.json and .md"
    console.print(f"wrote the {stream} {what} to {out}, and what it is to {beside}")
