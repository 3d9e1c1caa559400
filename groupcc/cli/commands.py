"""One function a command: from parsed options to the library's calls."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from groupcc import _defaults
from groupcc.analysis import EMBEDDING_METHODS, FAMILY_METHODS, check_options
from groupcc.errors import argument_error
from groupcc.harvesting import OrbitStore
from groupcc.models import CrosscoderConfig
from groupcc.models.options import parse as parse_options
from groupcc.models.sparsity import sparsity_of
from groupcc.training import TrainConfig

__all__ = ["COMMANDS"]

CAUSAL_IMAGES = 16
"""Images that `run` checks families on, as many as `groupcc causal` does by default."""


def demo(args: argparse.Namespace) -> None:
    from groupcc.cli.demo import run_demo

    run_demo(
        args.out,
        group=args.group,
        steps=args.steps,
        seed=args.seed,
        visualize=args.visualize,
        causal=args.causal,
        nulls=args.nulls,
    )


def run(args: argparse.Namespace) -> None:
    from groupcc.cli import stages

    # All of it is checked before the harvest, which may take hours.
    settings, analysis = train_config(args), analysis_options(args)
    crosscoder_config(args, args.group, d_in=1)
    pictures = stages.Pictures(args.model, args.weights, args.device, args.visualize)
    interventions = _interventions(args)
    _check_held_out_images(args.held_out_images, args.images)
    options, place = harvest_options(args), (args.model, args.layer)
    store = stages.harvest(args.out / "orbits", *place, args.images, args.group, options)
    held_out = None
    if args.held_out_images is not None:
        out, images, stage = args.out / "held_out_orbits", args.held_out_images, stages.HELD_OUT_STAGE
        held_out = stages.harvest(out, *place, images, args.group, options, stage)
    check_control(analysis, store.group.name, store.d_in)
    config = crosscoder_config(args, store.group.name, store.d_in)
    if args.nulls:
        from groupcc.cli.nulls import Subject, null_atlas

        subject = Subject(args.model, args.weights, args.device, args.images)
        analysis["nulls"] = null_atlas(args.out / "nulls" / "random", subject, store, config, settings, dict(analysis))
    stages.dictionary_to_report(
        args.out,
        store,
        config,
        settings,
        analysis,
        title=args.title,
        baseline=args.baseline,
        pictures=pictures,
        interventions=interventions,
        held_out=held_out,
    )


def harvest(args: argparse.Namespace) -> None:
    from groupcc.cli import stages

    store = stages.harvest(args.out, args.model, args.layer, args.images, args.group, harvest_options(args))
    print(f"{len(store)} examples of [{store.group.order}, {store.d_in}] in {args.out}")


def train(args: argparse.Namespace) -> None:
    from groupcc.cli import stages

    store = stages.open_orbits(args.orbits)
    config, settings = crosscoder_config(args, store.group.name, store.d_in), train_config(args)
    images, held_out = args.held_out_images, None
    _check_held_out_images(images)
    if images is not None:
        if args.model is None:
            expected, remedy = "--model with it", "Give the model that the orbits are of, and its --weights."
            raise argument_error("--held-out-images", expected=expected, got="no --model", remedy=remedy)
        out = args.out / "held_out_orbits"
        held_out = stages.harvest_held_out(out, store, images, args.model, args.weights, args.device)
    stages.train_crosscoder(args.out, store, config, settings, held_out)


def analyze(args: argparse.Namespace) -> None:
    from groupcc.cli import stages
    from groupcc.models import GroupCrosscoder
    from groupcc.report import summary

    options = analysis_options(args)
    store = stages.open_orbits(args.orbits) if args.orbits else None
    crosscoder = GroupCrosscoder.from_pretrained(args.crosscoder)
    check_control(options, crosscoder.group.name, crosscoder.config.d_in)
    atlas = stages.analyze(args.out, crosscoder, store, options)
    print(summary(atlas))


def report(args: argparse.Namespace) -> None:
    from groupcc.analysis import Atlas
    from groupcc.causal import CausalCheck
    from groupcc.cli import stages
    from groupcc.models import GroupCrosscoder

    store = stages.open_orbits(args.orbits) if args.orbits else None
    atlas, options = Atlas.load(args.atlas), {"title": args.title}
    if args.causal is not None:
        options["causal"] = CausalCheck.load(args.causal)
    if args.visualize:
        pictures = stages.Pictures(args.model, args.weights, args.device, args.visualize)
        missing = [name for name in ("model", "crosscoder", "orbits") if getattr(args, name) is None]
        if store is None or missing:
            expected = "--model, --crosscoder and --orbits with it"
            got = f"no --{' and no --'.join(missing)}"
            raise argument_error("--visualize", expected=expected, got=got, remedy="Give them, or leave it out.")
        crosscoder = GroupCrosscoder.from_pretrained(args.crosscoder)
        options["visualization"] = stages.visualize(pictures, crosscoder, store, atlas)
    stages.report(args.out, atlas, store, **options)


def compare(args: argparse.Namespace) -> None:
    from groupcc.cli import stages

    stages.compare(args.a, args.b, args.out, args.orbits and tuple(args.orbits), args.basis)


def causal(args: argparse.Namespace) -> None:
    import groupcc
    from groupcc.analysis import Atlas
    from groupcc.models import GroupCrosscoder

    found = groupcc.causal_check(
        args.model,
        args.layer,
        GroupCrosscoder.from_pretrained(args.crosscoder),
        args.images,
        Atlas.load(args.atlas),
        n_families=args.families,
        elements=args.elements,
        later=args.later,
        weights=args.weights,
        device=args.device,
        input_size=args.input_size,
        margin=_margin(args),
        max_images=args.max_images,
        forward_batch=args.forward_batch,
        seed=args.seed,
    )
    found.save(args.out)
    print(found.text())


def bench(args: argparse.Namespace) -> None:
    from groupcc.bench import run_bench

    run_bench(
        repeats=args.repeats,
        scale=args.scale,
        only=args.only,
        with_peers=not args.no_peers,
        warm=args.memory == "warm",
        out=args.out,
    )


def doctor(_: argparse.Namespace) -> None:
    from groupcc.cli.doctor import diagnosis

    print(diagnosis())


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "demo": demo,
    "run": run,
    "harvest": harvest,
    "train": train,
    "analyze": analyze,
    "report": report,
    "compare": compare,
    "causal": causal,
    "bench": bench,
    "doctor": doctor,
}


def harvest_options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "weights": args.weights,
        "device": args.device,
        "orbit": args.orbit,
        "positions": args.positions,
        "max_images": args.max_images,
        "groups": args.groups,
        "input_size": args.input_size,
        "margin": _margin(args),
        "dtype": args.dtype,
        "forward_batch": args.forward_batch,
        "seed": args.seed,
    }


def crosscoder_config(args: argparse.Namespace, group: str, d_in: int) -> CrosscoderConfig:
    return CrosscoderConfig(
        group=group,
        d_in=d_in,
        n_latents=args.latents,
        k=args.k,
        encoder=args.encoder,
        sparsity=args.sparsity,
        l1_coefficient=args.l1_coefficient,
        l1_penalty=args.l1_penalty,
        sparsity_options=parse_options(args.sparsity, sparsity_of(args.sparsity).options, args.sparsity_option),
        dead_after=args.dead_after,
        tied=args.tied,
        residual_penalty=args.residual_penalty,
        pose=args.pose,
    )


def train_config(args: argparse.Namespace) -> TrainConfig:
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise argument_error(
            "--tensorboard",
            expected="TensorBoard to be installed",
            got="no such package",
            remedy="pip install 'groupcc[tensorboard]', or leave it out: metrics.jsonl holds the same.",
        )
    return TrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        init_W_dec=args.init_decoder,
        resample_every=args.resample_every,
        augment=args.augment,
        held_out=args.held_out,
        checkpoint_every=args.checkpoint_every,
        seed=args.seed,
        tensorboard=args.tensorboard,
        device=args.device,
    )


def analysis_options(args: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {
        "tolerance": args.tolerance if args.tolerance == "auto" else _number("tolerance", args.tolerance)
    }
    if args.family_threshold != _defaults.FAMILY_THRESHOLD:
        options["family_threshold"] = args.family_threshold
    if args.family_method != FAMILY_METHODS[0]:
        options["family_method"] = args.family_method
    if args.embedding != EMBEDDING_METHODS[0]:
        options["embedding"] = args.embedding
    if args.evidence_examples != _defaults.EVIDENCE_EXAMPLES:
        options["evidence_examples"] = args.evidence_examples
    check_options(**options)
    if args.scaling:
        options["scaling"] = True
    if args.control is not None:
        options["control"] = OrbitStore.open(args.control)
    return options


def check_control(options: dict[str, Any], group: str, d_in: int) -> None:
    """ArgumentError where the orbits of --control are of another group or width than these."""
    control = options.get("control")
    if control is not None and (control.group.name, control.d_in) != (group, d_in):
        raise argument_error(
            "--control",
            expected=f"orbits under {group} of width {d_in}",
            got=f"{control.group.name} of width {control.d_in}",
            remedy="Harvest it with the same --model, --layer and --group.",
        )


def _interventions(args: argparse.Namespace) -> Any:
    """Of `run`; what the check would refuse is refused before the harvest."""
    from groupcc.cli import stages
    from groupcc.groups import group

    options = {
        "weights": args.weights,
        "device": args.device,
        "input_size": args.input_size,
        "margin": _margin(args),
        "max_images": min(args.max_images or CAUSAL_IMAGES, CAUSAL_IMAGES),
        "forward_batch": args.forward_batch,
        "seed": args.seed,
    }
    if args.causal and (args.orbit != "input" or group(args.group).order < 3):
        raise argument_error(
            "--causal",
            expected="--orbit input and a group of three elements or more",
            got=f"--orbit {args.orbit} --group {args.group}",
            remedy="Leave it out: images must be transformed, and one transform is the control of another.",
        )
    return stages.Interventions(args.model, args.layer, args.images, options, args.causal)


def _check_held_out_images(held_out: Path | None, images: Path | None = None) -> None:
    """ArgumentError if there are no images, or if those that are trained on are among them."""
    if held_out is None:
        return
    if not held_out.exists():
        expected, got = "a folder of images", f"{str(held_out)!r}, which doesn't exist"
        raise argument_error("--held-out-images", expected=expected, got=got, remedy="Check the path.")
    if images is not None:
        one, other = held_out.resolve(), images.resolve()
        if one == other or one in other.parents or other in one.parents:
            raise argument_error(
                "--held-out-images",
                expected="a folder beside that of --images, since folders are searched below",
                got=f"{str(held_out)!r} with --images {str(images)!r}",
                remedy="Move one of them, or leave it out: --held-out keeps a share of the photographs.",
            )


def _margin(args: argparse.Namespace) -> float | Literal["receptive_field"]:
    return "receptive_field" if args.margin == "receptive_field" else _number("margin", args.margin)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argument_error(
            f"--{name}", expected="a number, or the word --help gives", got=text, remedy="Leave it out for the default."
        ) from None
