"""The command line's commands and options; imports nothing heavy, so that --help answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from groupcc import __version__, _defaults
from groupcc.models.forms import FORMS, POSES
from groupcc.models.sparsity import SPARSITIES

__all__ = ["build_parser"]

DESCRIPTION = """\
Find and characterise the symmetries that a vision network has learned: run a model on every rotation and
reflection of images, train one sparse dictionary over all of it, and read each latent's symmetry off its blocks."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds each option's default, where there is one and the text doesn't tell it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or "default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """The parser; `args.command` names the command."""
    parser = argparse.ArgumentParser(prog="groupcc", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"groupcc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, *option_groups: Callable[[argparse.ArgumentParser], None]) -> None:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        for add in option_groups:
            add(sub)

    command("demo", "the whole way on photographs and EfficientNet-Lite0, in minutes", _demo)
    command(
        "run", "harvest, train, analyze and report in one go; run it again to go on where it stopped",
        _model, _images, _device, _harvest, _crosscoder, _training, _analysis, _run,
    )  # fmt: skip
    command(
        "harvest", "run a model on every transform of images and store the orbits",
        _model, _images, _device, _harvest, _harvest_seed, _directory("directory of the orbit store"),
    )  # fmt: skip
    command(
        "train", "train a group crosscoder on stored orbits",
        _orbits(required=True), _held_out_model, _device, _crosscoder, _training, _directory("directory of the run"),
    )  # fmt: skip
    command(
        "analyze", "read each latent's symmetry: atlas and tables",
        _trained, _orbits(required=False), _analysis, _directory("directory of the atlas"),
    )  # fmt: skip
    command("report", "write an atlas as one HTML page", _report)
    command("compare", "compare two runs: families that appear, vanish or change their symmetry", _compare)
    command(
        "causal", "move families to other poses at the layer, and see whether the rest of the network follows",
        _model, _images, _device, _trained, _causal,
    )  # fmt: skip
    command("bench", "time the ops here: every backend against the reference", _bench)
    command("doctor", "say which backends run here, and why others don't")
    return parser


def _directory(text: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)

    return add


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="where everything goes")
    parser.add_argument("--group", default="D16", help="C<n> or D<n>; D16 has 16 rotations and 16 reflections")
    parser.add_argument("--steps", type=int, default=None, help="training steps (default: the demo's own)")
    parser.add_argument("--seed", type=int, default=0, help="order of examples and starting weights")
    _nulls(parser, True)
    _visualize(parser)
    _checked(parser, 3)


def _nulls(parser: argparse.ArgumentParser, default: bool) -> None:
    parser.add_argument(
        "--nulls",
        action=argparse.BooleanOptionalAction,
        default=default,
        help="do all of it once more on the network with random weights; the page claims what exceeds that",
    )


def _checked(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--causal",
        type=int,
        default=default,
        metavar="N",
        help="check for the N largest families whether the rest of the network uses them so (see groupcc causal)",
    )


def _visualize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--visualize",
        type=int,
        default=0,
        metavar="N",
        help="make a picture that drives the latent, by gradient ascent, for N clear latents of the report",
    )


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        help='a torchvision name, "bundled", "efficientnet_lite0", or package.module:callable, which returns a module',
    )
    parser.add_argument("--layer", required=True, help="dotted name of the layer; a wrong one lists the right ones")
    parser.add_argument(
        "--weights", default=None, help="DEFAULT (torchvision's), a .safetensors/.pth/.pt file, or random"
    )


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=None, help="where the model and training run, such as cuda (default: cpu)")


def _held_out_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=None, help="with --held-out-images: the model that the orbits are of")
    parser.add_argument("--weights", default=None, help="with --held-out-images: the model's weights")


def _images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="a folder of images, searched below")


def _harvest(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("harvest")
    options.add_argument(
        "--group",
        default=_defaults.GROUP,
        help="C<n> or D<n>, n rotations; the paper's D32 is read as 32 rotations and 32 reflections",
    )
    options.add_argument("--orbit", choices=["input", "map"], default="input", help="transform images, or one map")
    options.add_argument("--positions", default="all", help="all in the safe disc, random:<n> of each image, or centre")
    options.add_argument("--max-images", type=int, default=None, help="take so many, a sample that --seed chooses")
    options.add_argument(
        "--groups",
        default=None,
        metavar="KEY",
        help="which images show one photograph, so that held-out ones share none: parent (those in one folder), a "
        "regular expression whose first group in the name is the key, or a CSV file with the columns image and group "
        "(default: each image is a photograph of its own)",
    )
    _geometry(options)
    options.add_argument("--dtype", choices=["float16", "bfloat16", "float32"], default="float16", help="on disk")
    options.add_argument(
        "--forward-batch", type=int, default=_defaults.FORWARD_BATCH, help="images in one forward pass"
    )


def _geometry(options: argparse._ActionsContainer) -> None:
    options.add_argument("--input-size", type=int, default=None, help="side that the model sees (default: its own)")
    options.add_argument(
        "--margin",
        default="receptive_field",
        help="pixels kept round each position: receptive_field is half of it, the safe choice",
    )


def _harvest_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="choice of random positions, and of --max-images")


def _crosscoder(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("crosscoder")
    options.add_argument("--latents", type=int, default=1024, help="dictionary size")
    options.add_argument(
        "--k", type=int, default=_defaults.K, help="active latents per example, or their mean over a batch"
    )
    options.add_argument(
        "--encoder", choices=["identity", "orbit"], default=_defaults.ENCODER, help="reads block 0 only, or every block"
    )
    options.add_argument(
        "--tied",
        nargs="?",
        const=True,
        default=False,
        choices=[form for form in FORMS if isinstance(form, str)],
        help="--latents are base latents, each present in every pose of the group; --tied residual: each pose with a "
        "penalised residual of its own, at the cost of |G| times as many latents",
    )
    options.add_argument(
        "--residual-penalty",
        type=float,
        default=None,
        metavar="X",
        help="--tied residual: from 0, as untied, to inf, as tied (default: by size)",
    )
    options.add_argument(
        "--pose",
        choices=[pose for pose in POSES if pose],
        default=None,
        help="tied: the strongest of each, or by non-maximum suppression",
    )
    options.add_argument(
        "--dead-after",
        type=int,
        default=None,
        help="examples without firing that make a latent count as dead (default: by the length of the run)",
    )
    options.add_argument("--sparsity", choices=list(SPARSITIES), default="topk", help="kind of sparsity")
    options.add_argument(
        "--sparsity-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of that kind, such as bandwidth=0.01 (default: as the kind has it); a wrong name lists them; "
        "may be given several times",
    )
    options.add_argument("--l1-coefficient", type=float, default=0.0, help="weight of the l1 penalty")
    options.add_argument(
        "--l1-penalty", choices=["block_sum", "concat"], default="block_sum", help="norm that the penalty weighs by"
    )


def _training(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("training")
    options.add_argument("--steps", type=int, default=_defaults.STEPS, help="optimizer steps")
    options.add_argument("--batch-size", type=int, default=_defaults.BATCH_SIZE, help="examples in a step")
    options.add_argument("--lr", type=float, default=None, help="height of the learning rate (default: by size)")
    options.add_argument(
        "--init-decoder", choices=["random", "examples"], default="random", help="examples keeps most latents alive"
    )
    options.add_argument(
        "--resample-every",
        type=int,
        default=None,
        metavar="N",
        help="steps after which dead latents start anew (0: never; default: a 20th of the steps)",
    )
    options.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=_defaults.AUGMENT,
        help="train on random translates of each orbit; without, on the orientations that the photographs have",
    )
    options.add_argument(
        "--held-out", type=float, default=_defaults.HELD_OUT, help="share of the photographs kept for evaluation"
    )
    options.add_argument(
        "--held-out-images",
        type=Path,
        default=None,
        metavar="DIR",
        help="evaluate on these images, harvested with the same settings into held_out_orbits, in place of a share of "
        "the photographs",
    )
    options.add_argument(
        "--checkpoint-every", type=int, default=_defaults.CHECKPOINT_EVERY, help="steps between checkpoints"
    )
    options.add_argument(
        "--seed", type=int, default=0, help="sample of images, positions, order of examples, starting weights"
    )
    options.add_argument("--tensorboard", action="store_true", help="write TensorBoard events too")


def _analysis(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("analysis")
    options.add_argument(
        "--tolerance", default="auto", help="a stabilizer's elements have C >= 1 - tolerance; auto calibrates it"
    )
    options.add_argument(
        "--family-threshold",
        type=float,
        default=_defaults.FAMILY_THRESHOLD,
        help="cosine from which latents are a family",
    )
    options.add_argument(
        "--family-method",
        default="star",
        metavar="METHOD",
        help="star: every member is like one of them; hdbscan: by density; threshold: whatever a chain of pairs links",
    )
    options.add_argument(
        "--embedding",
        default="pca",
        metavar="METHOD",
        help="how the family map is drawn: pca, or umap where umap-learn is installed",
    )
    options.add_argument(
        "--scaling", action="store_true", help="measure on the orbits whether empty blocks are absent or were shrunk"
    )
    options.add_argument(
        "--control",
        type=Path,
        default=None,
        metavar="DIR",
        help="an orbit store of images that look alike at every angle (discs), harvested at their centre: how far "
        "interpolation alone moves C",
    )
    options.add_argument(
        "--evidence-examples",
        type=int,
        default=_defaults.EVIDENCE_EXAMPLES,
        metavar="N",
        help="orbits at most that stabilizers are tested on; 0: from the weights alone",
    )


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where everything goes")
    parser.add_argument("--title", default=None, help="heading of the report")
    parser.add_argument(
        "--baseline", action="store_true", help="train a plain sparse autoencoder too and compare in the report"
    )
    _nulls(parser, False)
    _visualize(parser)
    _checked(parser, 0)


def _orbits(required: bool) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--orbits", type=Path, required=required, metavar="DIR", help="an orbit store")

    return add


def _trained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--crosscoder", type=Path, required=True, metavar="DIR", help="with cfg.json and crosscoder.safetensors"
    )


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--atlas", type=Path, required=True, metavar="DIR", help="what `groupcc analyze` wrote")
    parser.add_argument("--orbits", type=Path, default=None, metavar="DIR", help="the orbit store, for image patches")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file")
    parser.add_argument("--title", default=None, help="heading of the report")
    parser.add_argument("--causal", type=Path, default=None, metavar="FILE", help="what `groupcc causal` wrote")
    _visualize(parser)
    parser.add_argument("--model", default=None, help="with --visualize: the model that the orbits are of")
    parser.add_argument("--weights", default=None, help="with --visualize: the model's weights")
    parser.add_argument("--crosscoder", type=Path, default=None, metavar="DIR", help="with --visualize: the crosscoder")
    _device(parser)


def _compare(parser: argparse.ArgumentParser) -> None:
    for name in "ab":
        parser.add_argument(
            name, type=Path, metavar=name.upper(), help="a run's directory, or that of an atlas (then counts alone)"
        )
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FILE", help="write every family there, .csv or .json"
    )
    parser.add_argument(
        "--basis",
        choices=["auto", "decoders", "activations"],
        default="auto",
        help="match families by their decoders or by what they fire for; auto: decoders where both are of one layer",
    )
    parser.add_argument(
        "--orbits",
        type=Path,
        nargs=2,
        default=None,
        metavar=("DIR_A", "DIR_B"),
        help="orbit stores of the same images, for activations (default: orbits/ in both runs)",
    )


def _causal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--atlas", type=Path, required=True, metavar="DIR", help="what `groupcc analyze` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the scores, as JSON")
    parser.add_argument("--families", type=int, default=8, metavar="N", help="check the N largest")
    parser.add_argument(
        "--elements", type=int, nargs="+", default=None, metavar="H", help="transforms, by number (default: 4, spread)"
    )
    parser.add_argument("--later", nargs="+", default=(), metavar="LAYER", help="later layers to read too")
    parser.add_argument("--max-images", type=int, default=16, help="stop after so many")
    _geometry(parser)
    parser.add_argument("--forward-batch", type=int, default=32, help="images in one forward pass")
    parser.add_argument("--seed", type=int, default=0, help="of the random control")


def _bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scale",
        choices=["small", "goals", "gpu"],
        default="small",
        help="tensors of the demo's sizes, those of the goals in benchmarks/README.md (minutes), or bf16 on a GPU",
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds, in which all sides take turns; medians count")
    parser.add_argument("--only", nargs="+", default=(), metavar="OP", help="these ops alone")
    parser.add_argument("--no-peers", action="store_true", help="the reference alone to compare with")
    parser.add_argument(
        "--memory",
        choices=["warm", "system"],
        default="warm",
        help="results into memory written before, for all sides, or as the system's allocator has it",
    )
    parser.add_argument(
        "--out", type=Path, default=None, metavar="DIR", help="write bench.csv, bench.md and bench.svg there"
    )
