"""Where things lie in a store, and the JSON of its groups. No reading of frames, no writing of arrays."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from pipeline import storage
from pipeline.storage import digest
from pipeline.validation import parse_json
from pipeline.views import VIEWS

SCHEMA = 2
ANNOTATIONS = ".csv"
ATTRIBUTE = "costream"
RECORD = "zarr.json"
LONGEST_NAME = 240  # bytes; file systems allow 255 and a suffix must fit
# A component of a video id that is the name of something else in its parent's folder must not be taken for it. Those of
# views that are to come are kept free from the beginning: no store's paths change when there is one more view.
OTHERS_RESERVED = frozenset({"segmentation", "pose", "c", RECORD, ".", ".."})
RESERVED_ENDINGS = (".json", ".partial")  # records, quarantine files, and what is written aside


def reserved() -> frozenset[str]:
    """Names that no folder of a video has: those of arrays, and of what else lies beside them."""
    return OTHERS_RESERVED | VIEWS.keys()


def quoted(video_id: str) -> str:
    """A video id as a relative path: components percent-encoded, folders kept, reserved and long names told apart."""
    return "/".join(_quote(component) for component in video_id.split("/"))


def unquoted(path: str) -> str:
    """The video id that lies at a relative path, for messages; an id with a very long name does not come back whole."""
    return unquote(path)


def video_folder(store: Path, video_id: str) -> Path:
    return store / "videos" / quoted(video_id)


def record_path(store: Path, video_id: str) -> Path:
    """The commit record of a video."""
    return video_folder(store, video_id) / RECORD


def quarantine_path(store: Path, video_id: str) -> Path:
    return store / "quarantine" / f"{quoted(video_id)}.json"


def annotations_folder(store: Path) -> Path:
    return store / "annotations"


def annotations_path(store: Path, name: str) -> Path:
    return annotations_folder(store) / f"{name}{ANNOTATIONS}"


def annotations_written(store: Path) -> list[str]:
    """Names of the annotation sets that lie in a store, sorted. Raises Refusal."""
    files = (path for path, is_folder in storage.entries(annotations_folder(store)) if not is_folder)
    return sorted(path.name.removesuffix(ANNOTATIONS) for path in files if path.name.endswith(ANNOTATIONS))


def annotations_list_path(store: Path) -> Path:
    return store / "annotations.json"


def inventory_path(store: Path) -> Path:
    return store / "inventory.json"


def classes_path(store: Path) -> Path:
    return store / "classes.txt"


def classes_digest_path(store: Path) -> Path:
    return store / "classes.txt.sha256"


def lock_path(store: Path) -> Path:
    return store / ".lock"


def fence_path(store: Path) -> Path:
    return store / ".fence"


def catalogue_path(store: Path) -> Path:
    return store / "catalogue.parquet"


def is_inside(name: str) -> bool:
    """Whether a record's name of a file stays within the video's folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def stamps_path(store: Path) -> Path:
    return store / "catalogue.stamps"


def group(attributes: dict[str, Any] | None = None) -> bytes:
    """The zarr.json of a Zarr v3 group."""
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def quarantine_file(entry: dict[str, Any]) -> bytes:
    """What is known of a refused video, as its file holds it."""
    return (json.dumps(seal(entry), indent=2, ensure_ascii=False) + "\n").encode()


def attributes_of(zarr_json: bytes) -> dict[str, Any] | None:
    """costream's attributes of a zarr.json; None where it is somebody else's or a plain folder group. Raises
    ValueError."""
    found = parse_json(zarr_json)
    attributes = found.get("attributes", {}) if isinstance(found, dict) else None
    own = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else 0
    if own is not None and not isinstance(own, dict):
        raise ValueError("it is not what Zarr writes for a group")
    return own


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Attributes with the digest of their own content, so that a flipped byte in them is noticed too."""
    return {**record, "digest": _content_digest(record)}


def is_sealed(record: dict[str, Any]) -> bool:
    return record.get("digest") == _content_digest({key: value for key, value in record.items() if key != "digest"})


def _content_digest(record: dict[str, Any]) -> str:
    return digest(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())


def _quote(component: str) -> str:
    name = quote(component, safe="")
    if component in VIEWS or component in OTHERS_RESERVED or component.startswith("__"):
        name = f"%{ord(component[0]):02X}{name[1:]}"
    if component.endswith(RESERVED_ENDINGS):
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    if len(name) > LONGEST_NAME:
        name = f"{name[:200]}~{digest(component.encode())[:16]}"
    return name
