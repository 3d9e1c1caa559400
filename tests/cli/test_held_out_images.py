"""--held-out-images: metrics and activations of images in another folder, harvested with the same settings."""

import json
import shutil

import pytest
import torch

from groupcc.analysis import Atlas
from groupcc.cli import main
from groupcc.harvesting import OrbitStore
from groupcc.models import GroupCrosscoder
from groupcc.training import evaluate
from helpers.workplaces import RUN

OTHERS = ["--held-out-images", "others"]
SETTINGS = ("fingerprint", "layer", "group", "orbit", "positions", "seed", "margin", "lattice", "preprocess", "dtype")
TRAIN = ["train", "--orbits", "out/orbits", "--latents", "8", "--k", "2", "--steps", "5", "--batch-size", "8"]


@pytest.fixture
def folders(workplace):
    """Four images to train on, and two others."""
    (workplace / "others").mkdir()
    for i in (4, 5):
        shutil.move(workplace / "images" / f"<b>{i}.png", workplace / "others" / f"<b>{i}.png")
    return workplace


def read(folder):
    return GroupCrosscoder.from_pretrained(folder)


def test_run_measures_on_the_held_out_images(folders, capsys):
    assert main([*RUN, *OTHERS]) == 0
    printed = capsys.readouterr().out
    assert "── harvest the held-out images" in printed
    assert "on held-out images: FVU" in printed
    seen, unseen = (OrbitStore.open(folders / "out" / name) for name in ("orbits", "held_out_orbits"))
    assert (seen.image_names, unseen.image_names) == ([f"<b>{i}.png" for i in range(4)], ["<b>4.png", "<b>5.png"])
    for name in SETTINGS:
        assert seen.index["settings"][name] == unseen.index["settings"][name]
    crosscoder = read(folders / "out" / "crosscoder" / "crosscoder")
    assert crosscoder.provenance["metrics"] == evaluate(crosscoder, unseen)
    quality = crosscoder.provenance["quality"]
    assert (quality["photographs"], quality["held_out_photographs"]) == (4, 2)
    on = Atlas.load(folders / "out" / "atlas").evidence.activations_on
    assert (on.seen, on.images, on.examples) == ("held-out", 2, len(unseen))
    rows = json.loads((folders / "out" / "comparison.json").read_text())
    assert rows[0]["FVU, all transforms"] == pytest.approx(crosscoder.provenance["metrics"]["fvu"], abs=1e-3)
    assert "images held out from training" in (folders / "out" / "report.html").read_text()
    page = (folders / "out" / "report.html").read_bytes()
    table = (folders / "out" / "atlas" / "table.csv").stat().st_mtime_ns
    assert main([*RUN, *OTHERS]) == 0
    assert (folders / "out" / "report.html").read_bytes() == page
    assert (folders / "out" / "atlas" / "table.csv").stat().st_mtime_ns == table
    capsys.readouterr()


def test_train_harvests_as_the_store_was_harvested(folders, capsys):
    harvest = ["harvest", *RUN[1:9], "--out", "out/orbits", "--input-size", "33", "--positions", "random:10"]
    harvest += ["--groups", r"\d", "--seed", "3"]
    assert main(harvest) == 0
    options = [*TRAIN, "--out", "run", *OTHERS]
    assert main([*options, "--model", "tiny_cli_net:Net"]) == 0
    seen, unseen = (OrbitStore.open(folders / name) for name in ("out/orbits", "run/held_out_orbits"))
    for name in (*SETTINGS, "groups"):
        assert seen.index["settings"][name] == unseen.index["settings"][name]
    crosscoder = read(folders / "run" / "crosscoder")
    assert crosscoder.provenance["metrics"] == evaluate(crosscoder, unseen)
    # As `harvest` itself gives them.
    assert main([*harvest, "--images", "others", "--out", "again"]) == 0
    assert torch.equal(OrbitStore.open(folders / "again")[:], unseen[:])
    capsys.readouterr()
    for wrong, message in (
        ([], "--held-out-images: expected --model with it; got no --model. Give the model"),
        (["--model", "bundled"], "model: expected the model that the orbits were harvested from (tiny_cli_net:Net)"),
    ):
        assert main([*options, *wrong]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "--held-out-images: expected a folder of images; got 'nowhere', which doesn't exist"),
        ("images", "--held-out-images: expected a folder beside that of --images"),
        ("images/below", "--held-out-images: expected a folder beside that of --images"),
        (".", "--held-out-images: expected a folder beside that of --images"),
    ],
)
def test_images_that_are_trained_on_are_refused_before_the_harvest(folders, capsys, folder, message):
    (folders / "images" / "below").mkdir()
    assert main([*RUN, "--held-out-images", folder]) == 2
    assert message in capsys.readouterr().err
    assert not (folders / "out").exists()


def test_a_copy_of_the_images_is_refused_before_training(folders, capsys):
    shutil.copytree(folders / "images", folders / "copy")
    assert main([*RUN, "--held-out-images", "copy"]) == 2
    assert "held_out_orbits: expected orbits of other photographs" in capsys.readouterr().err
