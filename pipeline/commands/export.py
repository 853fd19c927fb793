"""The command that hands a stored video to other tools."""

from __future__ import annotations

import time

from pipeline.arguments import Name, OutputPlace, StorePlace, Text
from pipeline.commands.stores import console, errors
from pipeline.extraction.progress import counting_bar
from pipeline.show.export import export as run_export
from pipeline.store import open_store


def export(store: StorePlace, video: Name, /, *, out: OutputPlace, view: Text = "") -> None:
    """Write one stored video as MP4, as NumPy array or as a folder of images, for other tools.

    The ending of `out` decides. `.mp4`: H.264 of high quality at the stored frame rate, flow as colours. `.npy`: rgb
    uint8 (F, H, W, 3), flow float32 (F-1, 2, H, W) in pixels, u (right) before v (down). No ending, a FOLDER: the
    stored images, byte for byte, of rgb as img_00001.jpg and so on; but flow in denseflow's layout, flow_x_00001.jpg
    and flow_y_00001.jpg, gray JPEGs of quality 95 in the papers' mapping (-20..20 pixels to 0..255), encoded again.

    Examples: `export stores/mine Walk/w_01 --out w_01.mp4`; `export stores/mine Walk/w_01 --out w_01 --view flow`.

    Args:
        store: Folder of the store, or its URL.
        video: Id of the video.
        out: What to write; folders above it are made, and nothing that is there is replaced.
        view: Which of the views that the store holds; by default its first, rgb where there is one.
    """
    opened = open_store(store)
    began, done = time.perf_counter(), 0
    with counting_bar("frames", errors) as bar:
        (video,) = opened.own_names([video])
        info = opened.info(video)
        total = info.shapes.get(view or info.views[0], (None,))[0]
        task = bar.add_task("export", total=total, rate="")

        def advance(frames: int) -> None:
            nonlocal done
            done += frames
            bar.update(task, advance=frames, rate=f"{done / max(time.perf_counter() - began, 1e-9):.0f} frames/s")

        told = run_export(opened, video, out, view, advance)
    console.print(f"exported {video}: {told}: {out}")
