"""visualize: the picture that drives a latent most, on nets whose answer is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import groupcc
from groupcc.cli import main
from groupcc.harvesting import OrbitStore
from groupcc.harvesting.again import view_again
from groupcc.report import clear_latents, write_report
from groupcc.views.layers import LayerReader
from groupcc.visualization import Visualization
from groupcc.visualization.ascent import Ascent
from groupcc.visualization.reading import PivotReader
from groupcc.visualization.visualization import _parts
from helpers.nets import TinyNet, smooth_noise, write_photographs
from helpers.report_samples import page_data, shape_atlas

D4 = groupcc.group("D4")


def bar(side: int = 9) -> torch.Tensor:
    """An oblique dark–bright edge under a Gaussian, of sum 0: no element of D4 leaves it as it is."""
    y, x = torch.meshgrid(*[torch.arange(side) - side // 2] * 2, indexing="ij")
    return (x + 0.5 * y) * torch.exp(-(x**2 + y**2) / 8.0)


class OneFilter(nn.Module):
    """`conv`: the edge on the mean of the channels, with every pixel its own output pixel."""

    def __init__(self, kernel: torch.Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, kernel.shape[0], padding=kernel.shape[0] // 2, bias=False)
        self.conv.weight.data = kernel.expand(1, 3, *kernel.shape) / 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def stored(net: nn.Module, layer: str, **options) -> OrbitStore:
    options = {"group": "D4", "input_size": 41, "positions": "random:4", "progress": False} | options
    return groupcc.harvest(net, layer, smooth_noise(3, options.pop("canvas", 65), sigma=2.0), **options)


def dictionary(encoder: str, weights_LGD: torch.Tensor, **options) -> groupcc.GroupCrosscoder:
    L, _, D = weights_LGD.shape
    config = groupcc.CrosscoderConfig(group="D4", d_in=D, n_latents=L, k=1, encoder=encoder, **options)
    made = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        made.W_enc.copy_(weights_LGD)
        made.b_enc.copy_(torch.arange(L) + 0.25)
    return made


def likeness(image: torch.Tensor, pattern: torch.Tensor) -> float:
    """Correlation of an image's brightness with a pattern, about its middle."""
    edge = (image.shape[-1] - pattern.shape[-1]) // 2
    grey = image.mean(0)
    if edge:
        grey = grey[edge:-edge, edge:-edge]
    return float(torch.corrcoef(torch.stack([grey.flatten(), pattern.flatten()]))[0, 1])


@pytest.fixture(scope="module")
def edge() -> tuple[OneFilter, OrbitStore]:
    net = OneFilter(bar())
    return net, stored(net, "conv")


def test_the_picture_for_a_filter_is_the_filter(edge) -> None:
    net, store = edge
    found = groupcc.visualize(net, dictionary("identity", torch.tensor([[[1.0]], [[-1.0]]])), store, [1, 0], rounds=12)
    assert found.latents == [1, 0]
    assert found.images.shape == (2, 3, 9, 9)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert likeness(found.images[1], bar()) > 0.7
    assert likeness(found.images[0], bar()) < -0.7
    assert found.beats_examples.all()


def test_with_every_block_read_each_counts_alike(edge) -> None:
    """Block g alone asks for the filter turned back by g; blocks 0 and 2 of opposite signs add up for an edge, which
    an ascent that looked at the upright image alone, or more often, would weigh otherwise."""
    net, store = edge
    only = torch.zeros(3, 8, 1)
    only[0, 1] = only[1, 5] = 1.0  # a quarter turn; a mirroring
    only[2] = 1.0  # all alike: an edge adds up to nothing
    found = groupcc.visualize(net, dictionary("orbit", only), store, [0, 1, 2], rounds=12, elements=3)
    kernels = D4.orbit(bar()[None], antialias=False)[:, 0]
    for latent, element in ((0, 1), (1, 5)):
        alike = [likeness(found.images[latent], kernel) for kernel in kernels]
        assert max(range(8), key=lambda g: alike[g]) == int(D4.inverse[element])
        assert max(alike) > 0.7
    assert abs(float(found.pre_acts[2]) - 2.25) < 0.2, "nothing but the bias is left"
    assert found.beats_examples[:2].all()


def test_an_image_of_known_value(edge, monkeypatch) -> None:
    """What is reported is what harvest gives for the picture on grey, and the examples' largest, by other means."""
    net, store = edge
    made = dictionary("orbit", torch.randn(5, 8, 1, generator=torch.Generator().manual_seed(1)))
    pictures = []
    harvested = PivotReader.harvested

    def watch(self: PivotReader, patches: torch.Tensor) -> torch.Tensor:
        pictures.append(patches)
        return harvested(self, patches)

    monkeypatch.setattr(PivotReader, "harvested", watch)
    found = groupcc.visualize(net, made, store, torch.tensor([4, 2]), rounds=2)
    canvas = torch.full((2, 3, 65, 65), 0.5)
    edge_ = (65 - pictures[0].shape[-1]) // 2
    canvas[..., edge_:-edge_, edge_:-edge_] = pictures[0]
    orbits = groupcc.harvest(
        net, "conv", canvas, "D4", input_size=41, positions="centre", dtype="float32", progress=False
    )
    pre = made.pre_acts(orbits[:])
    torch.testing.assert_close(found.pre_acts, torch.stack([pre[0, 4], pre[1, 2]]).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.strongest, made.pre_acts(store[:]).amax(0)[[4, 2]].detach())


@pytest.mark.parametrize("tied", [True, "residual"])
@pytest.mark.parametrize("encoder", ["identity", "orbit"])
def test_rows_are_the_encoders(tied, encoder) -> None:
    config = groupcc.CrosscoderConfig(group="D4", d_in=3, n_latents=4, k=2, encoder=encoder, tied=tied)
    made = groupcc.GroupCrosscoder(config, seed=3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) / 10)
    acts = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(5))
    W, b = made.encoder_rows([3, 1])
    pre = torch.einsum("ngd,lhgd->nlh", acts[:, : W.shape[2]], W) + b
    wide = made.untie().pre_acts(acts).view(6, 4, 8)
    torch.testing.assert_close(pre, wide[:, [3, 1]].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("orbit", ["input", "map"])
def test_the_window_reads_what_the_whole_input_gives(orbit) -> None:
    net = TinyNet()
    store = stored(net, "body", input_size=97, canvas=145, orbit=orbit)
    reader = PivotReader(view_again(store, net))
    assert max(reader.view.geometry.input_size) < 40, "the model is run on the part that matters"
    patches = torch.rand(2, 3, reader.side, reader.side, generator=torch.Generator().manual_seed(0))
    elements = list(range(8)) if orbit == "input" else [0]
    with torch.no_grad():
        read = reader.read(patches, elements)
    torch.testing.assert_close(read.expand(2, 8, -1), reader.harvested(patches), rtol=1e-4, atol=1e-5)


def test_the_map_orbit_is_one_reading_for_every_block() -> None:
    net = OneFilter(bar())
    store = stored(net, "conv", orbit="map")
    weights = torch.zeros(2, 8, 1)
    weights[0, 3], weights[1, :2] = 1.0, torch.tensor([[1.0], [-1.0]])
    found = groupcc.visualize(net, dictionary("orbit", weights), store, [0, 1], rounds=8)
    assert likeness(found.images[0], bar()) > 0.7
    assert float(found.pre_acts[1]) == pytest.approx(1.25, abs=1e-4), "its blocks cancel"
    assert not found.beats_examples[1]


def test_elements_take_turns() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = _parts(8, 3, generator)
    assert sorted(len(part) for part in parts) == sorted([3, 3, 2] * 2)
    assert sorted(g for part in parts for g in part) == sorted([*range(8)] * 2)
    assert [p for part in parts for p in part][:8] != list(range(8))
    assert _parts(1, 8, generator) == [[0]] * 4


def test_an_ascent_takes_back_what_was_worse() -> None:
    parameters = torch.zeros(2, 3)
    ascent = Ascent(parameters, 1.0)
    ascent.step(torch.ones(2, 3))
    ascent.end_round(torch.tensor([1.0, 1.0]))
    moved = parameters.clone()
    assert (moved > 0).all()
    ascent.step(torch.tensor([[5.0], [-5.0]]).expand(2, 3))
    ascent.end_round(torch.tensor([2.0, 0.5]))
    assert (parameters[0] > moved[0]).all()
    assert (parameters[1] == 0).all()
    assert ascent.rate[0] > 1.0 > ascent.rate[1]
    assert (ascent.velocity[1] == 0).all()


def test_a_step_is_as_long_whatever_the_gradients_scale() -> None:
    gradient = torch.tensor([[1.0, -2.0], [1000.0, -2000.0], [0.0, 0.0]])
    parameters = torch.zeros(3, 2)
    Ascent(parameters, 0.5).step(gradient)
    torch.testing.assert_close(parameters[0], parameters[1])
    assert float(parameters[0].norm()) == pytest.approx(0.5)
    assert (parameters[2] == 0).all()


def test_a_reader_gives_gradients_where_asked_alone() -> None:
    net, image = TinyNet(), torch.rand(1, 3, 40, 40)
    assert not LayerReader(net, "body")(image).requires_grad
    assert LayerReader(net, "body", gradients=True)(image).requires_grad
    with torch.no_grad():
        assert not LayerReader(net, "body", gradients=True)(image).requires_grad


def test_a_net_of_doubles_is_visualised_too() -> None:
    net = OneFilter(bar()).double()
    found = groupcc.visualize(net, dictionary("orbit", torch.ones(1, 8, 1)), stored(net, "conv"), [0], rounds=1)
    assert found.images.dtype == found.pre_acts.dtype == torch.float32


def test_the_seed_decides_and_the_model_is_left_alone(edge) -> None:
    net, store = edge
    made = dictionary("orbit", torch.ones(1, 8, 1))
    net.train()
    runs = [groupcc.visualize(net, made, store, [0], rounds=2, seed=seed).images for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert net.training
    assert net.conv.weight.grad is None
    assert not net.conv._forward_hooks
    net.eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": []}, "latents: expected at least one index from 0 to 0"),
        ({"latents": [0.5]}, r"got \[0.5\]"),
        ({"latents": [1]}, r"got \[1\]"),
        ({"rounds": 0}, "rounds: expected a whole number of at least 1"),
        ({"elements": 0}, "elements"),
        ({"jitter": -1}, "jitter: expected a whole number of at least 0"),
        ({"lr": 0}, "lr"),
        ({"seed": -1}, "seed"),
        ({"channels": True}, "channels"),
        ({"preprocess": ((0.5,), (0.2,))}, "preprocess: expected that of the orbits, None"),
        ({"model": OneFilter(bar(7))}, "model: expected the model that the orbits were harvested from"),
        ({"crosscoder": dictionary("orbit", torch.ones(1, 8, 2))}, "of 2 channels"),
    ],
)
def test_wrong_arguments(edge, options, message) -> None:
    given = {
        "model": edge[0],
        "crosscoder": dictionary("orbit", torch.ones(1, 8, 1)),
        "orbits": edge[1],
        "latents": [0],
    }
    with pytest.raises(groupcc.errors.ArgumentError, match=message):
        groupcc.visualize(**(given | options))


def visualization(latents: list[int]) -> Visualization:
    n = len(latents)
    images = torch.zeros(n, 3, 9, 9)
    images[:, 0] = 1.0
    return Visualization(latents, images, torch.tensor([3.0, 1.0][:n]), torch.tensor([2.0, 2.0][:n]))


def test_the_report_shows_pictures_and_says_which_say_little(tmp_path: Path) -> None:
    atlas = shape_atlas("D8", {"line": 2, "curve": 2})
    plain = page_data(write_report(tmp_path / "a.html", atlas).read_text(encoding="utf-8"))
    data = page_data(
        write_report(tmp_path / "b.html", atlas, visualization=visualization([2, 0])).read_text(encoding="utf-8")
    )
    assert not any("gradient ascent" in body for body in plain["bodies"])
    bodies = dict(zip(data["latents"], data["bodies"], strict=True))
    assert [latent for latent in bodies if "gradient ascent" in bodies[latent]] == sorted(
        [0, 2], key=list(bodies).index
    )
    assert 'alt="Picture made to drive latent 2, pre-activation 3"' in bodies[2]
    assert "says little" in bodies[0]
    assert "says little" not in bodies[2]
    assert len(data["patches"]) == 2
    with pytest.raises(groupcc.errors.ArgumentError, match="visualization: expected latents of the atlas, 0 to 3"):
        write_report(tmp_path / "c.html", atlas, visualization=visualization([4]))


def test_clear_latents_are_neither_dead_nor_undecided_nor_spare() -> None:
    rows = [{"spare": True}, {"undecided": "too few examples"}, {"spare": False, "undecided": None}, {}, {}]
    kinds = ["mirror", "mirror", "mirror", "none", "dead"]
    atlas = SimpleNamespace(table=lambda: rows, kinds=kinds, frequency=torch.ones(5))
    assert clear_latents(atlas, 4) == [2, 3]
    assert clear_latents(atlas, 1) == [2]
    assert clear_latents(atlas, 0) == []


def test_the_commands(tmp_path: Path, capsys, monkeypatch) -> None:
    write_photographs(tmp_path / "images", 3)
    # Of so few examples no latent is clear: the live ones stand in for those.
    live = lambda atlas, limit: [i for i, kind in enumerate(atlas.kinds) if kind != "dead"][:limit]  # noqa: E731
    monkeypatch.setattr("groupcc.report.clear_latents", live)
    out, model = tmp_path / "run", ["--model", "helpers.nets:TinyNet"]
    command = ["run", *model, "--layer", "body", "--images", str(tmp_path / "images"), "--out", str(out), "--group"]
    command += ["D4", "--input-size", "97", "--latents", "6", "--k", "3", "--steps", "3", "--encoder", "orbit"]
    assert main([*command, "--visualize", "-1"]) == 2
    assert "--visualize: expected a whole number" in capsys.readouterr().err
    assert not out.exists(), "said before anything is run"
    assert main([*command, "--visualize", "2"]) == 0
    assert "of 2 beat the strongest example" in capsys.readouterr().out

    page = tmp_path / "report.html"
    command = ["report", "--atlas", str(out / "atlas"), "--orbits", str(out / "orbits"), "--out", str(page)]
    command += ["--visualize", "1"]
    assert main(command) == 2
    assert "no --model and no --crosscoder" in capsys.readouterr().err
    assert main([*command, *model, "--crosscoder", str(out / "crosscoder" / "crosscoder")]) == 0
    for path, count in ((out / "report.html", 2), (page, 1)):
        bodies = page_data(path.read_text(encoding="utf-8"))["bodies"]
        assert sum("gradient ascent" in body for body in bodies) == count
