"""The causal check on networks whose truth is known, an exactly equivariant layer and a broken one; the bundled net."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import groupcc
from groupcc.causal import CONDITIONS
from groupcc.causal.members import Writer, members_of
from groupcc.cli import main
from groupcc.errors import ArgumentError
from groupcc.groups import as_action
from groupcc.views.geometry import plan_geometry
from groupcc.zoo import photographs
from helpers.causal_nets import D4, Net, pictures, tied, untied


def check(net, crosscoder, count=4, **options):
    atlas = groupcc.analyze(crosscoder)
    return groupcc.causal_check(net, "layer", crosscoder, pictures(count), atlas, progress=False, **options)


@pytest.mark.parametrize("made", [untied(), tied("identity"), tied("orbit")], ids=["untied", "identity", "orbit"])
def test_an_equivariant_layer_scores_one_and_its_controls_do_not(made):
    found = check(Net().eval(), made, 8, later=["mix"])
    assert [(e.family, e.readout) for e in found.effects] == [
        (0, "output"), (0, "mix"), (1, "output"), (1, "mix")
    ]  # fmt: skip
    for effect in found.effects:
        assert effect.reposed == pytest.approx(1.0, abs=1e-4)
        assert effect.measured == pytest.approx(1.0, abs=1e-4)
        controls = max(effect.placed, effect.unmoved, effect.wrong, effect.random)
        assert controls < 0.65
        assert effect.effect > 0.05
        assert effect.similarity == pytest.approx(1.0)
        assert effect.verdict == "yes"
        assert effect.margin == pytest.approx(effect.reposed - controls)
        assert effect.pose_margin == pytest.approx(effect.reposed - effect.placed)


@pytest.mark.parametrize("made", [untied(), tied("identity"), tied("orbit")], ids=["untied", "identity", "orbit"])
def test_a_broken_layer_does_not(made):
    # By its weights the dictionary is as symmetric as ever; the network is not.
    broken, whole = check(Net(broken=True).eval(), made, 8).effects
    # The dictionary's family numbers follow the shapes.
    assert broken.reposed < 0
    assert whole.reposed == pytest.approx(1.0, abs=1e-4)
    assert whole.verdict == "yes"
    if made.config.encoder == "orbit":
        # What is moved and what is measured agree by construction there: the truth must come from the network.
        assert broken.measured == pytest.approx(broken.reposed, abs=1e-4)
        assert (broken.verdict, (broken.reason or "")[:11]) == ("undecided", "the ceiling")
    else:
        assert broken.verdict == "no"
        assert broken.measured == pytest.approx(1.0, abs=1e-4)


def uneven() -> groupcc.GroupCrosscoder:
    """As `untied`, lengths and biases uneven, and of the second shape one latent alone."""
    made = untied()
    generator = torch.Generator().manual_seed(2)
    lengths = 0.5 + torch.rand(16, generator=generator)
    with torch.no_grad():
        made.W_dec.mul_(lengths[:, None, None])
        made.W_dec[9:] = 0.0
        made.W_enc.div_(lengths[:, None, None])
        made.b_enc.copy_(-6 - torch.rand(16, generator=generator))  # silent at many positions
        made.b_dec.copy_(0.2 * torch.randn(8, 16, generator=generator))
    return made


def by_hand(net: Net, made: groupcc.GroupCrosscoder, picture: torch.Tensor, moves: list[int]) -> dict[str, float]:
    """The scores of the first shape's family, each step written out on whole maps, where D4 copies pixels."""
    lattice = groupcc.measure_lattice(net, "layer", (33, 33), channels=1)
    geometry = plan_geometry(lattice, (33, 33), canvas_size=(33, 33))
    disc = torch.zeros(29, 29)
    for x, y in geometry.candidates:
        disc[y, x] = 1.0
    spline = torch.tensor([1.0, 6.0, 1.0]) / 8
    kernel = (spline[:, None] * spline).expand(16, 1, 3, 3)
    maps = net.layer(as_action(D4).transform(picture)[0])
    smooth = nn.functional.conv2d(maps, kernel, padding=1, groups=16)
    W, E = made.W_dec[:, 0], made.W_enc[:, 0].t()

    def acts(image):
        return torch.relu(torch.einsum("dyx,dl->lyx", image, E) + made.b_enc[:, None, None])

    def there(h):
        """Latents of x at h⁻¹q."""
        return acts(as_action(D4).transform(smooth[:1], [h], antialias=False)[0, 0])[:8]

    def posed(here, h):
        """Each act given to the latent that is it in pose h."""
        out = torch.zeros_like(here)
        for u in range(8):
            out[D4.cayley[h, u]] = here[u] * W[u].norm() / W[D4.cayley[h, u]].norm()
        return out

    def moved(h):
        return posed(there(h), h)

    def write(latents, vectors):
        return torch.einsum("lyx,ld->dyx", latents, vectors) * disc

    edits: dict[int, dict[str, torch.Tensor]] = {}
    taken, active = {}, {}
    for turn, h in enumerate(moves):
        f = acts(smooth[h])
        others = torch.einsum("lyx,ld->dyx", f[8:], W[8:])
        seen = ((f[:8] > 0).any(0) | (moved(h) > 0).any(0)).float() * disc
        left = smooth[h] - made.b_dec[0][:, None, None] - others
        left[8:] = 0.0  # the first shape's latents write channels 0 to 7
        taken[h], active[h] = left * seen, seen
        stranger = nn.functional.normalize(W[8:9], dim=1) * W[:8].norm(dim=1, keepdim=True)
        edits[h] = {
            "ablated": torch.zeros_like(left),
            "reposed": write(moved(h), W[:8]),
            "measured": write(f[:8], W[:8]),
            "placed": write(there(h), W[:8]),
            "turned": write(posed(acts(smooth[0])[:8], h), W[:8]),
            "unmoved": write(acts(smooth[0])[:8], W[:8]),
            "wrong": write(moved(moves[(turn + 1) % len(moves)]), W[:8]),
            "random": write(moved(h), stranger),
        }
    mean = sum(taken[h].sum((1, 2)) for h in moves) / sum(active[h].sum() for h in moves)
    sums = dict.fromkeys(CONDITIONS, 0.0)
    for h in moves:
        edits[h]["averaged"] = mean[:, None, None] * active[h]
        intact = net.tail(maps[h][None])
        for name in CONDITIONS:
            changed = net.tail((maps[h] - taken[h] + edits[h][name])[None])
            sums[name] += float((changed - intact).double().square().sum())
    return {name: 1 - sums[name] / sums["averaged"] for name in CONDITIONS}


@pytest.mark.parametrize("broken", [False, True])
def test_every_condition_is_what_it_says(broken):
    net, made, moves = Net(broken).eval(), uneven(), [1, 6, 3]
    atlas = groupcc.analyze(made)
    family = int(atlas.families.labels[0])
    picture = pictures(1)
    found = groupcc.causal_check(
        net, "layer", made, picture, atlas, only=[family], elements=moves, progress=False, forward_batch=4
    )
    with torch.no_grad():
        expected = by_hand(net, made, picture, moves)
    for name in CONDITIONS[2:]:
        assert getattr(found.effects[0], name) == pytest.approx(expected[name], rel=1e-3, abs=1e-4), name
    assert len({round(value, 3) for value in expected.values()}) == len(CONDITIONS)


def test_strangers_are_none_where_the_family_is_all_there_is():
    made = untied()
    with torch.no_grad():
        made.W_dec[8:] = 0.0
    with torch.no_grad():
        expected = by_hand(Net().eval(), made, pictures(1), [1, 3])["ablated"]
    atlas = groupcc.analyze(made)
    options = {"elements": [1, 3], "progress": False, "max_images": 1}
    (one,) = groupcc.causal_check(Net().eval(), "layer", made, pictures(), atlas, **options).effects
    assert one.random == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", [True, "residual"])
@pytest.mark.parametrize("encoder", ["orbit", "identity"])
def test_what_tied_atoms_write_is_what_the_untied_dictionary_writes(kind, encoder):
    config = groupcc.CrosscoderConfig(group="D3", d_in=4, n_latents=3, k=2, encoder=encoder, tied=kind, pose="max")
    made = groupcc.GroupCrosscoder(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    writer, plain = Writer(made), made.untie()
    torch.testing.assert_close(writer.upright, plain.W_dec[:, 0].detach())
    torch.testing.assert_close(writer.bias, plain.b_dec[0].detach())
    acts = torch.randn(9, 6, 4, generator=generator)
    with torch.no_grad():
        expected = made.decode(made.encode(acts))[:, 0]
        found = writer.write(*writer.encode(acts)) + writer.bias
    torch.testing.assert_close(found, expected)


def test_the_space_of_a_family_holds_no_more_than_it_writes_to():
    made = untied()
    with torch.no_grad():
        made.W_dec[1] = made.W_dec[0]
        made.W_dec[2] = 0.0
    basis = members_of(Writer(made), torch.tensor([0, 1, 2])).basis
    torch.testing.assert_close(basis.abs(), torch.eye(16)[:1])


def test_a_family_with_a_gap_is_told_by_its_similarity():
    made = untied()
    with torch.no_grad():
        made.W_dec[[1, 2, 3]] = 0.0
    atlas = groupcc.analyze(made)
    found = groupcc.causal_check(Net().eval(), "layer", made, pictures(), atlas, only=[0, 1], progress=False)
    sizes = {effect.latents: effect for effect in found.effects}
    assert sizes[8].similarity == pytest.approx(1.0)
    assert sizes[5].similarity < 0.8
    assert sizes[5].reposed < sizes[8].reposed - 0.1


def test_a_family_that_never_fires_has_no_score():
    made = untied()
    with torch.no_grad():
        made.b_enc[:8] = -1e3
    found = groupcc.causal_check(Net().eval(), "layer", made, pictures(), groupcc.analyze(made), progress=False)
    silent = found.effects[0]
    assert (silent.effect, silent.reposed, silent.positions) == (0.0, None, 0)
    assert (silent.verdict, silent.reason) == ("undecided", "never active on these images")
    assert silent.similarity is None


def test_results_repeat_and_do_not_depend_on_batches(tmp_path):
    first, again = (check(Net().eval(), untied(), forward_batch=batch, seed=3) for batch in (32, 5))
    for one, other in zip(first.effects, again.effects, strict=True):
        assert one.random == pytest.approx(other.random, rel=1e-3)
        assert one.wrong == pytest.approx(other.wrong, rel=1e-3)
    assert first.table() == check(Net().eval(), untied(), seed=3).table()
    saved = json.loads(first.save(tmp_path / "causal.json").read_text(encoding="utf-8"))
    assert saved["effects"] == first.table()
    assert saved["images"] == first.images == 4
    assert first.elements == [D4.element_names[h] for h in (1, 3, 5, 7)]
    assert "used so" in first.text()


def test_hooks_and_training_mode_are_left_as_they_were():
    net = Net()
    made = untied().train()
    groupcc.causal_check(net, "layer", made, pictures(), groupcc.analyze(made), progress=False, max_images=1)
    assert net.training
    assert made.training
    assert not net.layer._forward_hooks
    assert not net._forward_hooks


@pytest.fixture(scope="module")
def bundled():
    """A crosscoder of the bundled net's mixed3b, hardly trained, and its atlas."""
    store = groupcc.harvest(
        "bundled", "mixed3b", photographs("held_out"), group="C4", max_images=2, positions="random:40", progress=False
    )
    config = groupcc.CrosscoderConfig(group="C4", d_in=store.d_in, n_latents=32, k=4)
    settings = groupcc.TrainConfig(steps=20, batch_size=64, progress=False)
    crosscoder = groupcc.train(groupcc.GroupCrosscoder(config), store, settings).crosscoder
    return crosscoder, groupcc.analyze(crosscoder)


def test_the_bundled_net_on_photographs(bundled):
    crosscoder, atlas = bundled
    options = {"max_images": 2, "n_families": 3, "later": ["mixed4a"], "progress": False}
    found = groupcc.causal_check("bundled", "mixed3b", crosscoder, photographs("held_out"), atlas, **options)
    assert found.images == 2
    assert len(found.effects) == 6
    assert found.elements == ["90°", "180°", "270°"]
    for effect in found.effects:
        assert effect.reposed is None or effect.reposed <= 1.0
        assert effect.verdict == "undecided"  # two images give no interval


def test_the_command(bundled, tmp_path, capsys):
    crosscoder, atlas = bundled
    crosscoder.save_pretrained(tmp_path / "crosscoder")
    atlas.save(tmp_path / "atlas")
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    command = ["causal", "--model", "bundled", "--layer", "mixed3b", "--images", folder]
    command += ["--crosscoder", tmp_path / "crosscoder", "--atlas", tmp_path / "atlas", "--out", tmp_path / "c.json"]
    assert main([str(word) for word in [*command, "--families", 2, "--elements", 1, 3, "--later", "mixed4a"]]) == 0
    saved = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert saved["elements"] == ["90°", "270°"]
    assert [(e["family"], e["readout"]) for e in saved["effects"]] == [
        (0, "output"), (0, "mixed4a"), (1, "output"), (1, "mixed4a")
    ]  # fmt: skip
    assert "used so" in capsys.readouterr().out


def test_wrong_arguments():
    net, made = Net().eval(), untied()
    atlas = groupcc.analyze(made)
    with pytest.raises(ArgumentError, match="elements"):
        check(net, made, elements=[1])
    with pytest.raises(ArgumentError, match="elements"):
        check(net, made, elements=[0, 1])
    with pytest.raises(ArgumentError, match="only"):
        check(net, made, only=[7])
    with pytest.raises(ArgumentError, match="max_images"):
        check(net, made, max_images=0)
    with pytest.raises(ArgumentError, match="nothing"):
        check(net, made, later=["nothing"])
    with pytest.raises(ArgumentError, match="families"):
        groupcc.causal_check(net, "layer", tied("orbit"), pictures(), atlas)
    with pytest.raises(ArgumentError, match="d_in=12"):
        groupcc.causal_check(net, "mix", made, pictures(), atlas, progress=False)
