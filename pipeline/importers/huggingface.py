"""A folder as Hugging Face's VideoFolder has it: `metadata.csv` (or .jsonl) beside the videos, with `file_name`."""

from __future__ import annotations

import posixpath
from pathlib import Path

from pipeline import called
from pipeline.errors import Refusal
from pipeline.importers import lists as official
from pipeline.importers import table
from pipeline.importers.inventory import Place, Tree, folder_of, printable, split_folder
from pipeline.importers.matching import Entry, match
from pipeline.manifest import Manifest

NAMES = ("metadata.csv", "metadata.jsonl")
NAME = "file_name"


def read(videos: Place, label: str = "label", classes: Path | None = None) -> Manifest:
    """The videos that the metadata of all folders below `videos` name, each relative to its metadata's folder.

    The split is the column `split`, or else the leading folder `train/`, `val/` (`validation/`) or `test/`. label: the
    column that has the class; a table without it gives no labels, which is told. classes: a class list, whose places
    labels may be; by default the labels, sorted. Raises Refusal.
    """
    top = folder_of(videos)
    found = [
        posixpath.join(folder, name)
        for folder, names in (Tree(top).folders() if top.is_dir() else [])
        for name in sorted(posixpath.basename(path) for path in names)
        if name in NAMES
    ]
    if not found:
        raise Refusal(
            f"there is no {' or '.join(NAMES)}",
            where=str(top),
            remedy=f"give the folder that holds it; folders without metadata are {called.option('dataset', 'folder')}",
        )
    listed = [(path, number, row) for path in found for number, row in table.rows(top / path)]
    labels = {row[label] for _, _, row in listed if row.get(label)}
    names = table.class_names(classes) if classes else sorted(labels, key=lambda name: (name.lower(), name))
    by_spelling = official.official_names(names)
    entries = []
    for path, number, row in listed:
        where = f"{top / path}, row {number}"
        if not row.get(NAME):
            raise Refusal(f"a row has no {NAME}", where=where, remedy=f"give the column {NAME} a video's path")
        video = posixpath.normpath(posixpath.join(posixpath.dirname(path), row[NAME]))
        split = (
            table.split_of(row["split"], where) if row.get("split") else split_folder("/".join(official.parts(video)))
        )
        entries.append(Entry(video, table.class_of(row.get(label, ""), names, by_spelling, where), split))
    notes = [] if labels else [f"the metadata has no column {printable(label)}: videos have no labels"]
    return match(videos, entries, names, notes, case_matters=True)
