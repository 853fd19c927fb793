"""One self-contained HTML page about a run: what it found, in numbers and in pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval import classes, filmstrips, published, results, streams
from eval.bank import FeatureBank, again
from eval.charts import Bar
from eval.features import videos_digest
from eval.filmstrips import Strip
from eval.protocols import PROTOCOLS
from eval.report import pictures, sheets, training, verdicts
from eval.report.sheets import Sheet
from eval.report.verdicts import Verdict, standard_error
from eval.results import NETWORKS, Record
from eval.runs import Stage, bank_path, recipe_text, stages, trained_on
from eval.table import words
from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.store import VideoStore
from pipeline.views import VIEWS
from pipeline.views.view import View
from train import checkpoints
from train.run_folder import read_recipe
from train.show import pages

QUERIES = 4
METHODS_WITH_LABELS = frozenset({"ubernce", "classify"})


Banks = dict[str, tuple[Stage, FeatureBank, FeatureBank]]


def write_report(run: Path, store: VideoStore) -> Path:
    """Write RUN/report.html from RUN/results.json, the feature banks, the logs and the store, and its tables into
    RUN/tables. Returns the page's path.

    Raises:
        Refusal: a run that was not evaluated, or a store with other videos than those that were.
    """
    content = page_content(run, store)
    page = render("report.html", content)
    sheets.write(content["sheets"], run / "tables")
    path = run / "report.html"
    with storage.writing("the report", path):
        storage.write_atomically(path, page.encode())
    return path


def render(template: str, content: dict[str, Any]) -> str:
    """A page of this package; every name that the template uses must be there."""
    environment = pages.environment("eval")
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f}"
    environment.filters["cell"] = words
    return environment.get_template(template).render(content)


def page_content(run: Path, store: VideoStore) -> dict[str, Any]:
    """Everything that the page shows, by the names of the template."""
    records, trained_stages = _evaluated(run, store)
    protocol = "clean" if any(r.protocol == "clean" for r in records) else records[0].protocol
    shown = [r for r in records if r.protocol == protocol]
    banks = _banks(run, trained_stages, protocol, store)
    bank = next(iter(banks.values()))[1]
    videos, gallery = len(bank.rows("test")), len(bank.rows("train"))
    protocols = list(dict.fromkeys(record.protocol for record in records))
    centre = PROTOCOLS[protocol].centre
    by_class = _by_class(banks, store, centre)
    best = pictures.best_stream(shown, banks)
    quotes = published.about(records[0].data, first=_made_by(trained_stages[-1]))
    order = [stage.name for stage in trained_stages]
    told = verdicts.verdicts(shown, order, videos)
    strips = _strips(banks, store, centre)
    content = {
        "run": run.resolve().name,
        "run_path": str(run),
        "data": records[0].data,
        "annotations": records[0].annotations,
        "methods": sorted({stage.metadata["method"] for stage in trained_stages}),
        "labels_in_training": any(stage.metadata["method"] in METHODS_WITH_LABELS for stage in trained_stages),
        "headline": _headline(told, order, shown),
        "verdicts": verdicts.sheet(told),
        "disagreements": verdicts.disagreements(told),
        "when": training.when(trained_stages),
        "chart": _chart(shown, trained_stages, videos),
        "protocol": protocol,
        "queries": videos,
        "gallery": gallery,
        "classes": len(store.classes),
        "stream_names": {r.stream: streams.in_words(r.stream) for r in records},
        "below": {name: VIEWS[name].colours_in_words for name in banks if name in VIEWS and name != store.views[0]},
        "strips": strips,
        "beside": _beside(banks, store, next(iter(strips.values()))),
        "results": {name: sheets.of_results(name, records) for name in protocols},
        "clusters": {name: _clusters(name, records) for name in protocols},
        "by_class": by_class,
        "map": pictures.drawn_map(banks[best][1], store, "test", centre),
        "map_stream": best,
        "protocol_words": {name: PROTOCOLS[name].words for name in {r.protocol for r in records}},
        "curves": training.curves([trained_stages]),
        "cost": training.cost(trained_stages, read_recipe(run)),
        "provenance": training.provenance(trained_stages, [checkpoints.digest(s.checkpoint) for s in trained_stages]),
        "recipe": recipe_text(run),
        "store": _store_summary(store),
        "versions": sheets.plain(
            "versions", "Versions", ("package", "extraction", "training"), _versions(store, trained_stages)
        ),
        "other_settings": any(s.metadata["store_settings_hash"] != store.settings_hash for s in trained_stages),
        "other_videos": not all(trained_on(stage, run, store) for stage in trained_stages),
        "published": sheets.of_published(records[0].data, quotes) if quotes else None,
    }
    return content | {"sheets": _all_sheets(content)}


def _evaluated(run: Path, store: VideoStore) -> tuple[list[results.Record], list[Stage]]:
    """The results of a run on a store, and its stages. Raises Refusal where they do not belong together."""
    records = results.of(results.read(run / "results.json"), store)
    if not records:
        raise Refusal(
            "the run was evaluated on other videos than this store's, or by another of its annotation sets",
            where=f"{run}, {store.root}, annotation set {store.annotated.name!r}",
            remedy=_its_store(),
        )
    trained_stages = stages(run)
    if gone := {name for r in records for name in r.stage.split("+")} - {stage.name for stage in trained_stages}:
        raise Refusal(
            f"the results are of stages whose checkpoints are not there: {', '.join(sorted(gone))}",
            where=str(run),
            remedy="put the checkpoints back, or evaluate what is there:"
            f" {called.command('evaluate', run='', store='')}",
        )
    return records, trained_stages


def _banks(run: Path, trained_stages: list[Stage], protocol: str, store: VideoStore) -> Banks:
    """Per stream: the last stage that trained it, and the banks of its trained and its untrained network."""
    found: Banks = {}
    for stage in trained_stages:
        for stream in stage.metadata["streams"]:
            trained, untrained = (bank_path(run, store, stage.name, network, protocol, stream) for network in NETWORKS)
            if trained.is_file() and untrained.is_file():
                found[stream] = (stage, FeatureBank.load(trained), FeatureBank.load(untrained))
    if not found:
        raise Refusal("there are no features of this run", where=str(run / "features"), remedy=again())
    for stage, bank, _ in found.values():
        refuse_other_videos(bank, store, stage.name)
    return {stream: found[stream] for stream in streams.in_order(found)}


def refuse_other_videos(bank: FeatureBank, store: VideoStore, where: str) -> None:
    """Raises Refusal for a bank of other videos, labels or splits than a store has."""
    known = all(video in store.infos for video in bank.video_ids)
    if not known or videos_digest(store, bank.video_ids) != bank.attributes["videos"]:
        raise Refusal(
            "the run was evaluated on other videos than this store's",
            where=f"{where}, {store.root}",
            remedy=_its_store(),
        )


def _headline(made: Sequence[Verdict], order: Sequence[str], records: list[Record]) -> dict[str, Any]:
    """R@1 of the last stage in words: after training, before it, the gain with its error, by guessing."""
    last = verdicts.headline(made, order)
    return {
        "stage": last.stage,
        "after": last.after,
        "before": last.before,
        "gain": f"{100 * last.gain:+.1f} ± {100 * last.error:.1f}",
        "direction": last.direction,
        "chance": next((r.chance for r in records if (r.metric, r.stream) == ("R@1", last.stream)), None),
        "words": streams.in_words(last.stream).split(" (")[0],
    }


def _chart(records: list[Record], trained_stages: list[Stage], videos: int) -> dict[str, list[Bar]]:
    """Per stream: a bar for each stage that trained it, the untrained network, and guessing."""
    order = [stage.name for stage in trained_stages]
    groups: dict[str, list[Bar]] = {}
    for stream in streams.in_order(r.stream for r in records):
        own = [r for r in records if r.metric == "R@1" and r.stream == stream]
        if not own:
            continue
        trained = sorted(
            (r for r in own if r.network == "trained"), key=lambda r: order.index(r.stage.split("+")[0]), reverse=True
        )
        several = len(trained) > 1
        groups[stream] = [
            Bar(
                f"after {r.stage}" if several else "after training", "trained", r.value, standard_error(r.value, videos)
            )
            for r in trained
        ]
        before = next(r for r in own if r.network == "untrained" and r.stage == trained[0].stage)
        groups[stream].append(Bar("before training", "untrained", before.value, standard_error(before.value, videos)))
        if before.chance is not None:
            groups[stream].append(Bar("by guessing", "chance", before.chance, None))
    return groups


def _strips(banks: Banks, store: VideoStore, centre: bool) -> dict[str, list[Strip]]:
    """The same queries for every stream."""
    queries: list[str] = []
    made = {}
    for stream, (_, trained, untrained) in banks.items():
        queries = queries or filmstrips.choose_queries(trained, QUERIES)
        made[stream] = filmstrips.strips(store, trained, untrained, queries, centre)
    return made


def _beside(banks: Banks, store: VideoStore, queries: Sequence[Strip]) -> dict[View, list[Strip]]:
    """Of each view that no network of the run looks at, the same queries, without neighbours."""
    clip = next(iter(banks.values()))[1].attributes
    frames = int(clip["clip.length"]) * int(clip["clip.stride"])
    return {
        VIEWS[view]: [
            Strip(query.video_id, query.label, filmstrips.picture(store, query.video_id, view, frames), [], [])
            for query in queries
        ]
        for view in store.views[1:]
        if view not in banks
    }


def _clusters(protocol: str, records: list[Record]) -> list[Sheet]:
    made = sheets.of_clusters(protocol, records), sheets.of_sizes(protocol, records)
    return [sheet for sheet in made if sheet.table.rows]


def _by_class(banks: Banks, store: VideoStore, centre: bool) -> dict[str, tuple[Sheet, pictures.Matrix | None]]:
    """Of each stream R@1 class by class, and what the trained network confuses."""
    made = {}
    for stream, (_, *both) in banks.items():
        counts = []
        for bank in both:
            tested, gallery = bank.rows("test"), bank.rows("train")
            found = classes.found_classes(bank.features[tested], bank.features[gallery], bank.labels[gallery], centre)
            counts.append(classes.confusion(bank.labels[tested], found, len(store.classes)))
        trained, untrained = (classes.by_class(count) for count in counts)
        sheet = sheets.of_classes(stream, store.classes, trained, untrained)
        made[stream] = sheet, pictures.matrix(counts[0], store.classes)
    return made


def _all_sheets(content: dict[str, Any]) -> Sequence[Sheet]:
    several = [*content["results"].values(), *(sheet for made in content["clusters"].values() for sheet in made)]
    several += [sheet for sheet, _ in content["by_class"].values()]
    alone = [content[name] for name in ("verdicts", "published", "cost", "provenance", "versions")]
    return [*several, *(sheet for sheet in alone if sheet)]


def _made_by(stage: Stage) -> str:
    """The method of a stage; of an imported file, that of its authors."""
    return stage.metadata.get("published", stage.metadata)["method"]


def _store_summary(store: VideoStore) -> dict[str, Any]:
    infos = store.infos.values()
    reasons = Counter(store.quarantine.values())
    return {
        "path": str(store.root),
        "videos": len(infos),
        "splits": Counter(info.split or "no split" for info in infos),
        "frames": sum(info.length for info in infos),
        "hours": sum(info.length / info.fps for info in infos if info.fps) / 3600,
        "sizes": Counter(f"{info.width}x{info.height}" for info in infos).most_common(1)[0][0],
        "views": store.settings,
        "settings_hash": store.settings_hash,
        "quarantined": sum(reasons.values()),
        "reasons": reasons.most_common(5),
    }


def _versions(store: VideoStore, trained_stages: list[Stage]) -> list[tuple[str, str, str]]:
    """(name, version that extracted, version that trained) for everything that either recorded."""
    trained = trained_stages[-1].metadata["versions"]
    return [(name, store.software.get(name, ""), trained.get(name, "")) for name in sorted(store.software | trained)]


def _its_store() -> str:
    return (
        "give the store that it was evaluated on, or evaluate it on this one:"
        f" {called.command('evaluate', run='', store='')}"
    )
