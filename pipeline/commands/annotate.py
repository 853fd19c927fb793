"""The command `annotate`: what people say of a store's videos, written beside what was extracted."""

from __future__ import annotations

from pipeline import called
from pipeline.arguments import Input, Name, Seed, Share, StorePlace, Text
from pipeline.commands.following import after_store
from pipeline.commands.stores import console, errors
from pipeline.errors import UsageError, counted
from pipeline.manifest import Manifest
from pipeline.store import annotation, open_store
from pipeline.store.annotation import AnnotationSet, with_test_share
from pipeline.store.writing import writing_to
from pipeline.terminal import marked


def annotate(
    store: StorePlace,
    manifest: Input | None = None,
    name: Name = annotation.EXTRACTION,
    test_share: Share = 0.0,
    seed: Seed = 0,
    annotations: Text = "",
) -> None:
    """Write the labels, recordings and splits of a manifest as an annotation set of a store; no video is touched.

    A store can have several sets, for other splits or other classes; `--annotations NAME` of other commands chooses
    one. The default is `extraction`, the set that extraction keeps: give its name (or none) to correct a label.

    Examples: `annotate --store stores/ucf101 --manifest split2.csv --name split2`; `annotate --store stores/mine --name
    tested --test_share .2`.

    Args:
        store: Folder of the store, or its URL.
        manifest: Whose labels, sources and splits are written; its class list lies beside it. Its paths do not matter.
        name: Of the set; what has that name already is replaced.
        test_share: Make a split where there is none: of each class so large a part of the videos becomes the test
            split, whole recordings, drawn by the seed; the rest is for training.
        seed: Of that draw.
        annotations: Without a manifest, the set of the store that gets the split.
    """
    if manifest is None and not test_share:
        raise UsageError(
            "there is nothing to write",
            remedy=f"give a manifest, or {called.option('test_share', '.2')} to make a split",
        )
    opened = open_store(store, annotations)
    content = AnnotationSet.of_manifest(Manifest.load(manifest)) if manifest else opened.annotated.as_set()
    content = AnnotationSet(
        content.classes, dict(zip(opened.own_names(content.said), content.said.values(), strict=True))
    )
    if test_share:
        content = with_test_share(content, test_share, seed)
    with writing_to(opened.root):
        annotation.save(opened.root, name, content)
    opened = open_store(store, name)
    written = opened.annotated
    if told := written.told():
        errors.print(marked("note", "yellow", told))
    splits = ", ".join(f"{number} {split}" for split, number in written.count_splits().items())
    console.print(
        f"annotated {counted(len(written.table) - written.left_out, 'video')} ({splits})"
        f" of {counted(len(written.classes), 'class', 'classes')} as"
        f" {name}, digest {written.digest[:16]}, in {store}"
    )
    if name == annotation.EXTRACTION:
        errors.print(after_store(opened))
