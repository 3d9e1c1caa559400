"""The stages from images to report. Each one looks for its finished result first, and goes on where a run stopped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import groupcc
from groupcc.analysis import Atlas, Comparison
from groupcc.causal import FORMAT_VERSION, CausalCheck
from groupcc.cli.compare import comparison, training_seconds
from groupcc.data.splits import held_out_examples
from groupcc.errors import DataError, argument_error, is_whole
from groupcc.files import canonical_hash, read_json, write_json
from groupcc.harvesting import OrbitStore
from groupcc.harvesting.again import view_again
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.models.quality import Quality
from groupcc.training import TrainConfig, TrainResult, regress_decoder, train_sae
from groupcc.views.fingerprints import tensor_digest
from groupcc.visualization import Visualization

__all__ = [
    "Interventions",
    "Pictures",
    "analyze",
    "check_causally",
    "compare",
    "dictionary_to_report",
    "harvest",
    "harvest_held_out",
    "open_orbits",
    "report",
    "stage",
    "train_crosscoder",
    "visualize",
]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How many latents to make pictures for, and with which model."""

    model: Any
    weights: Any
    device: str | None
    count: int

    def __post_init__(self) -> None:
        if not is_whole(self.count, 0):
            remedy = "Leave it out for none."
            raise argument_error("--visualize", expected="a whole number of at least 0", got=self.count, remedy=remedy)


@dataclasses.dataclass(frozen=True)
class Interventions:
    """How many families to check causally, largest first, with which model on which images; `options` of the check."""

    model: Any
    layer: str
    images: Any
    options: dict[str, Any]
    count: int

    def __post_init__(self) -> None:
        if not is_whole(self.count, 0):
            remedy = "Leave it out for none."
            raise argument_error("--causal", expected="a whole number of at least 0", got=self.count, remedy=remedy)


HELD_OUT_STAGE = "harvest the held-out images"


@contextmanager
def stage(name: str) -> Iterator[None]:
    print(f"── {name}", flush=True)
    started = time.monotonic()
    yield
    print(f"   {name}: {time.monotonic() - started:.1f} s", flush=True)


def harvest(
    out: Path, model: Any, layer: str, images: Any, group: str, options: dict[str, Any], named: str = "harvest"
) -> OrbitStore:
    """The orbit store in `out`, finished. `named`: what the stage is called."""
    with stage(named):
        return groupcc.harvest(model, layer, images, group, out=out, **options)


def harvest_held_out(
    out: Path, store: OrbitStore, images: Path, model: str, weights: str | None, device: str | None
) -> OrbitStore:
    """The orbits in `out` of images held out, harvested with a store's settings. A table of groups stays behind, since
    these images are not in it."""
    settings = store.index["settings"]
    groups = settings.get("groups")
    options = {"positions": settings["positions"], "dtype": store.dtype, "seed": settings["seed"]}
    with stage(HELD_OUT_STAGE):
        view = view_again(store, model, weights, device=device)
        return groupcc.harvest(
            view, images=images, out=out, groups=groups if isinstance(groups, str) else None, **options
        )


def open_orbits(path: Path) -> OrbitStore:
    """An existing store."""
    return OrbitStore.open(path)


def train_crosscoder(
    out: Path, store: OrbitStore, config: CrosscoderConfig, settings: TrainConfig, held_out: OrbitStore | None = None
) -> GroupCrosscoder:
    """The crosscoder under `out` (its files in `out/crosscoder`), trained on the store; `held_out`: the orbits that it
    is measured on."""
    with stage("train the pose-tied crosscoder" if config.tied else "train"):
        crosscoder = GroupCrosscoder(config, seed=settings.seed)
        crosscoder.provenance = _provenance(store)
        result = groupcc.train(crosscoder, store, dataclasses.replace(settings, out=out), held_out_orbits=held_out)
        print(f"   {_on(result)}: {_figures(result.metrics)}")
        return result.crosscoder.cpu()


def train_baseline(
    out: Path, store: OrbitStore, config: CrosscoderConfig, settings: TrainConfig, held_out: OrbitStore | None = None
) -> GroupCrosscoder:
    """A plain sparse autoencoder of the same size, trained under `out`, with a regressed decoder for every block."""
    with stage("train the baseline (a plain sparse autoencoder)"):
        result = train_sae(store, config, dataclasses.replace(settings, out=out), held_out_orbits=held_out)
        print(f"   {_on(result)}, upright activations: {_figures(result.metrics)}")
        return regress_decoder(result.crosscoder.cpu(), store, config.group, settings)


def analyze(out: Path, crosscoder: GroupCrosscoder, store: OrbitStore | None, options: dict[str, Any]) -> Atlas:
    """The atlas in `out`, with table.csv and table.json; read back where its inputs are those of the last time.

    `options` of `groupcc.analyze`, `control` and `held_out` as stores, `nulls` as an atlas.
    """
    with stage("analyze"):
        stores = {name: canonical_hash(value.index) for name, value in options.items() if isinstance(value, OrbitStore)}
        if isinstance(nulls := options.get("nulls"), Atlas):
            stores["nulls"] = f"{nulls.crosscoder} {nulls.tolerance}"
        held_out = None if store is None else held_out_examples(crosscoder.provenance, store)
        inputs = canonical_hash(
            {
                "groupcc": groupcc.__version__,
                "format": FORMAT_VERSION,
                "weights": crosscoder.fingerprint(),
                "orbits": canonical_hash(store.index) if store is not None else None,
                "held out": None if held_out is None else tensor_digest(held_out),
                "options": options | stores,
            }
        )
        marker = out / "inputs.json"
        if all((out / name).is_file() for name in ("table.csv", "table.json")) and _recorded_inputs(marker) == inputs:
            try:
                return Atlas.load(out)
            except DataError as error:
                print(f"   analyzing again: {error}")
        atlas = groupcc.analyze(crosscoder, store, progress=True, **options)
        atlas.save(out)
        atlas.write_table(out / "table.csv")
        atlas.write_table(out / "table.json")
        write_json(marker, {"inputs": inputs})
        return atlas


def _recorded_inputs(marker: Path) -> Any:
    try:
        return read_json(marker)["inputs"]
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: the analysis is made again
        return None


def visualize(pictures: Pictures, crosscoder: GroupCrosscoder, store: OrbitStore, atlas: Atlas) -> Visualization | None:
    """Pictures for the clearest latents of every kind; None where none is asked for, or none is clear."""
    from groupcc.report import clear_latents

    latents = clear_latents(atlas, pictures.count)
    if not latents:
        return None
    with stage(f"visualize {len(latents)} latents"):
        options = {"weights": pictures.weights, "device": pictures.device}
        found = groupcc.visualize(pictures.model, crosscoder, store, latents, **options)
        print(f"   {int(found.beats_examples.sum())} of {len(latents)} beat the strongest example")
        return found


def check_causally(
    out: Path, interventions: Interventions, crosscoder: GroupCrosscoder, store: OrbitStore, atlas: Atlas
) -> CausalCheck | None:
    """The causal check in `out`, read back where its inputs are those of the last time; None if not asked for."""
    count = min(interventions.count, len(atlas.families))
    if not count:
        return None
    with stage("causal check of " + ("1 family" if count == 1 else f"{count} families")):
        inputs = canonical_hash(
            {
                "groupcc": groupcc.__version__,
                "format": FORMAT_VERSION,
                "weights": crosscoder.fingerprint(),
                "orbits": canonical_hash(store.index),
                "families": atlas.families.fingerprint(),
                "n_families": count,
                "options": interventions.options,
            }
        )
        marker, file = out / "inputs.json", out / "causal.json"
        if file.is_file() and _recorded_inputs(marker) == inputs:
            try:
                return CausalCheck.load(file)
            except DataError as error:
                print(f"   checking again: {error}")
        found = groupcc.causal_check(
            interventions.model,
            interventions.layer,
            crosscoder,
            interventions.images,
            atlas,
            n_families=count,
            **interventions.options,
        )
        found.save(file)
        write_json(marker, {"inputs": inputs})
        return found


def report(path: Path, atlas: Atlas, store: OrbitStore | None, **options: Any) -> None:
    """The page at `path`, and its gist on the terminal."""
    from groupcc.report import summary, write_report

    with stage("report"):
        provenance = options.pop("provenance", None) or (_provenance(store) if store is not None else None)
        write_report(path, atlas, store, provenance=provenance, **options)
    print(f"\n{summary(atlas)}\n\nThe report: {path}")


def compare(
    a: Path,
    b: Path,
    out: Path | None,
    orbits: tuple[Path, Path] | None = None,
    basis: Literal["auto", "decoders", "activations"] = "auto",
) -> None:
    """Two runs, or two atlases, on the terminal; every family in `out`. `orbits`: where the runs don't hold them."""
    (atlas_a, first), (atlas_b, second) = (_read_run(path) for path in (a, b))
    crosscoders = None if first is None or second is None else (first, second)
    places = (a / "orbits", b / "orbits") if orbits is None else orbits
    missing = [place for place in places if orbits is None and not (place / "index.json").is_file()]

    def compared(stores: tuple[OrbitStore, OrbitStore] | None) -> Comparison:
        return groupcc.compare_atlases(atlas_a, atlas_b, crosscoders, orbits=stores, basis=basis, progress=True)

    # Stores are opened where they are needed: comparing decoders must not fail for a damaged one.
    found = None if basis == "activations" and not missing else compared(None)
    if found is None or (found.basis == "counts" and not missing):
        found = compared((open_orbits(places[0]), open_orbits(places[1])))
    if out is not None:
        found.write_table(out)
    print(found.summary((str(a), str(b))))
    if found.basis == "counts" and missing and crosscoders is not None and atlas_a.group == atlas_b.group:
        print(f"There are no orbits in {' and '.join(map(str, missing))}.")


def _read_run(path: Path) -> tuple[Atlas, GroupCrosscoder | None]:
    """The atlas of a run, or the one in `path` itself; and the run's crosscoder, where there is one."""
    atlas = Atlas.load(path / "atlas" if (path / "atlas").is_dir() else path)
    places = (path / "crosscoder" / "crosscoder", path / "crosscoder")
    place = next((place for place in places if (place / "cfg.json").is_file()), None)
    return atlas, None if place is None else GroupCrosscoder.from_pretrained(place)


def dictionary_to_report(
    out: Path,
    store: OrbitStore,
    config: CrosscoderConfig,
    settings: TrainConfig,
    analysis: dict[str, Any],
    *,
    title: str | None,
    baseline: bool,
    tied: tuple[CrosscoderConfig, TrainConfig] | None = None,
    pictures: Pictures | None = None,
    interventions: Interventions | None = None,
    held_out: OrbitStore | None = None,
) -> None:
    """Everything after the harvest: train, analyze, compare, report.

    `baseline`: compare with a plain sparse autoencoder, and with a pose-tied crosscoder of the settings `tied`, which
    gets an atlas and a report of its own. `pictures`, `interventions`: made for the report. `held_out`: orbits of other
    photographs to measure on, in place of the share that the settings keep.
    """
    if held_out is not None:
        settings, analysis = dataclasses.replace(settings, held_out=0.0), analysis | {"held_out": held_out}
    crosscoder = train_crosscoder(out / "crosscoder", store, config, settings, held_out)
    atlas = analyze(out / "atlas", crosscoder, store, analysis)
    causal = None if interventions is None else check_causally(out / "causal", interventions, crosscoder, store, atlas)
    rows = None
    if baseline:
        sae = train_baseline(out / "sae", store, config, settings, held_out)
        dictionaries = {"group crosscoder": (crosscoder, atlas)}
        if tied is not None:
            tied_crosscoder = train_crosscoder(out / "tied", store, *tied, held_out)
            tied_atlas = analyze(out / "tied" / "atlas", tied_crosscoder, store, analysis)
            tied_title = None if title is None else f"{title}, poses tied"
            page = _page_options(tied_crosscoder, store)
            report(out / "tied" / "report.html", tied_atlas, store, title=tied_title, **page)
        with stage("compare"):
            of_sae = {name: value for name, value in analysis.items() if name != "nulls"}
            dictionaries["plain SAE + regression"] = (sae, groupcc.analyze(sae, store, **of_sae))
            if tied is not None:
                dictionaries["pose-tied crosscoder"] = (tied_crosscoder, tied_atlas)
            seconds = None
            if tied is not None:
                places = dict(zip(dictionaries, ("crosscoder", "sae", "tied"), strict=True))
                seconds = {name: training_seconds(out / place / "metrics.jsonl") for name, place in places.items()}
            rows = comparison(dictionaries, store, settings, seconds, held_out)
            if tied is not None:
                rows[-1]["report"] = "tied/report.html"
            write_json(out / "comparison.json", rows)
        for row in rows:
            if "verdict" in row:
                print(f"   {row['verdict']}")
    page = _page_options(crosscoder, store)
    if pictures is not None:
        page["visualization"] = visualize(pictures, crosscoder, store, atlas)
    report(out / "report.html", atlas, store, title=title, baseline=rows, causal=causal, **page)


def _page_options(crosscoder: GroupCrosscoder, store: OrbitStore) -> dict[str, Any]:
    """What a page says of the dictionary beside its atlas."""
    config = crosscoder.config
    unseen = Quality.from_provenance(crosscoder.provenance).held_out_photographs
    measured_on = "images held out from training" if unseen else "the training images"
    return {
        "metrics": crosscoder.provenance["metrics"] | {"measured on": measured_on},
        "provenance": _provenance(store)
        | {"encoder": config.encoder, "sparsity": config.sparsity, "k": config.k}
        | ({"pose selection": config.pose} if config.tied else {}),
    }


def _provenance(store: OrbitStore) -> dict[str, Any]:
    return {
        "model": store.model_name,
        "layer": store.layer,
        "group": store.group.name,
        "n_images": len(store.image_names),
        "n_examples": len(store),
        "stride": store.lattice.stride,
        "offset": store.lattice.offset,
        "receptive_field": store.lattice.receptive_field,
    }


def _on(result: TrainResult) -> str:
    """Returns on what a result's metrics were measured."""
    return "on training images" if result.quality.held_out_fvu is None else "on held-out images"


def _figures(metrics: dict[str, Any]) -> str:
    fvu = "undefined" if metrics["fvu"] is None else f"{metrics['fvu']:.4f}"
    return f"FVU {fvu}, L0 {metrics['l0']:.1f}, dead {metrics['dead_fraction']:.1%} ({metrics['n_examples']} examples)"
