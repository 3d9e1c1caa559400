"""analyze on the command line: held-out images, a control, how many examples, and when it is done again."""

import json
import sys
from collections import Counter

import pytest

from groupcc.analysis import EVIDENCE_EXAMPLES, Atlas
from groupcc.cli import main, stages
from groupcc.cli.demo import PHOTOGRAPH, crops
from groupcc.cli.parser import build_parser
from groupcc.data.splits import held_out_examples
from groupcc.harvesting import OrbitStore
from groupcc.harvesting.photographs import photograph_keys
from groupcc.models import GroupCrosscoder
from groupcc.zoo import photographs
from helpers.workplaces import furnish

HARVEST = [
    "harvest", "--model", "tiny_cli_net:Net", "--layer", "first", "--input-size", "33", "--images", "images",
    "--positions", "random:10",
]  # fmt: skip
ANALYZE = ["analyze", "--crosscoder", "run/crosscoder", "--orbits", "orbits", "--out", "atlas"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    furnish(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for group in ("C4", "C2"):
            assert main([*HARVEST, "--group", group, "--out", "orbits" if group == "C4" else "other"]) == 0
        train = ["train", "--orbits", "orbits", "--latents", "8", "--k", "2", "--steps", "5", "--batch-size", "8"]
        assert main([*train, "--held-out", "0.3", "--out", "run"]) == 0
    yield folder
    sys.modules.pop("tiny_cli_net", None)


@pytest.fixture
def workplace(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def test_analyze_measures_activations_on_held_out_images(workplace, capsys, tmp_path):
    out = str(tmp_path / "atlas")
    assert main([*ANALYZE[:-1], out]) == 0
    on = Atlas.load(out).evidence.activations_on
    assert (on.seen, on.images, on.examples) == ("held-out", 2, 20)
    told = {row["activations_on"] for row in json.loads((tmp_path / "atlas" / "table.json").read_text())}
    assert told <= {"held-out", None}
    page = tmp_path / "page.html"
    assert main(["report", "--atlas", out, "--out", str(page)]) == 0
    assert "2 images, held out from training." in page.read_text()
    capsys.readouterr()


def test_control_and_evidence_examples(workplace, capsys, tmp_path):
    out = str(tmp_path / "atlas")
    assert main([*ANALYZE[:-1], out, "--control", "orbits", "--evidence-examples", "7"]) == 0
    evidence = Atlas.load(out).evidence
    assert evidence.null.control is not None
    assert evidence.activations_on.examples == 7
    assert main([*ANALYZE[:-1], out, "--evidence-examples", "0"]) == 0
    evidence = Atlas.load(out).evidence
    assert (evidence.null.control, evidence.activations, evidence.activations_on) == (None, None, None)
    for options, message in (
        (["--control", "other"], "--control: expected orbits under C4 of width 6; got C2 of width 6"),
        (["--control", "nowhere"], "nowhere"),
        (["--evidence-examples", "-1"], "evidence_examples: expected a whole number"),
    ):
        assert main([*ANALYZE[:-1], str(tmp_path / "wrong"), *options]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "wrong").exists()


def test_run_refuses_a_control_of_another_group_before_training(workplace, capsys):
    run = ["run", *HARVEST[1:], "--group", "C4", "--out", "whole", "--latents", "8", "--k", "2", "--control", "other"]
    assert main(run) == 2
    assert "--control: expected orbits under C4" in capsys.readouterr().err
    assert {path.name for path in (workplace / "whole").iterdir()} == {"orbits"}


def test_it_is_done_again_where_what_it_reads_has_changed(workplace, monkeypatch, capsys, tmp_path):
    crosscoder = GroupCrosscoder.from_pretrained("run/crosscoder")
    store, control = (OrbitStore.open(workplace / "orbits") for _ in range(2))
    control.index = {**control.index, "made": "again"}
    done = []
    analyze = stages.groupcc.analyze
    monkeypatch.setattr(stages.groupcc, "analyze", lambda *args, **options: done.append(1) or analyze(*args, **options))

    def again(options):
        done.clear()
        stages.analyze(tmp_path / "atlas", crosscoder, store, options)
        return bool(done)

    assert again({})
    assert not again({})
    assert again({"control": store})
    assert not again({"control": OrbitStore.open(workplace / "orbits")})
    assert again({"control": control})
    assert again({"evidence_examples": 9})
    assert not again({"evidence_examples": 9})
    crosscoder.provenance["settings"]["train"]["seed"] += 1
    assert again({"evidence_examples": 9})
    crosscoder.provenance = {}
    assert again({"evidence_examples": 9})
    assert not again({"evidence_examples": 9})
    capsys.readouterr()


def test_groups_come_to_the_split(workplace, capsys, tmp_path):
    orbits, run = str(tmp_path / "orbits"), str(tmp_path / "run")
    harvest = [*HARVEST, "--group", "C2", "--out", orbits]
    assert main([*harvest, "--groups", "([0-3]).png"]) == 2
    assert "groups: expected a regular expression whose first group" in capsys.readouterr().err
    assert main([*harvest, "--groups", "[0-3]|[45]"]) == 0
    assert OrbitStore.open(orbits).photograph_names == ["0", "1", "2", "3", "4", "5"]
    orbits = str(tmp_path / "three")
    (tmp_path / "three.csv").write_text("image,group\n" + "".join(f"<b>{i}.png,{i // 2}\n" for i in range(6)))
    assert main([*harvest[:-1], orbits, "--groups", str(tmp_path / "three.csv")]) == 0
    train = ["train", "--orbits", orbits, "--latents", "8", "--k", "2", "--steps", "5", "--batch-size", "8"]
    assert main([*train, "--held-out", "0.3", "--out", run]) == 0
    store = OrbitStore.open(orbits)
    unseen = held_out_examples(GroupCrosscoder.from_pretrained(f"{run}/crosscoder").provenance, store)
    assert len(store.image_ids[unseen].unique()) == 2
    assert len(store.photograph_ids[unseen].unique()) == 1
    capsys.readouterr()


def test_the_demos_crops_of_a_photograph_have_one_key():
    keys = [photograph_keys(PHOTOGRAPH).key(name) for name, _ in crops()]
    assert Counter(keys) == {photograph.name: 5 for photograph in photographs("held_out")}


def test_the_parsers_default_is_the_librarys():
    assert build_parser().parse_args(ANALYZE).evidence_examples == EVIDENCE_EXAMPLES
