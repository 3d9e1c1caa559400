"""What the storage dtype can not hold is refused before it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from groupcc.errors import DataError
from groupcc.harvesting import OrbitStore, harvest
from groupcc.harvesting.rounding import Rounding, check_loss
from helpers.nets import noise, unbiased_net
from helpers.stores import SETTINGS, contents, photograph_folder, run

__all__ = ["photograph_folder"]


class Mapped(nn.Module):
    """The tiny net, with maps of a standard deviation of about `factor`, moved by `shift`. `dim`: only those of dim
    images are moved."""

    def __init__(self, factor: float, shift: float, dim: bool = False) -> None:
        super().__init__()
        self.net, self.layer = unbiased_net(), nn.Identity()
        self.factor, self.shift, self.dim = factor, shift, dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        net = self.net
        maps = net.body(net.second(net.shared(net.first(x))))
        moved = x.amax((1, 2, 3)) < 0.1 if self.dim else torch.ones(len(x), dtype=torch.bool)
        return self.layer(200 * self.factor * maps + self.shift * moved[:, None, None, None])


def mapped(images: Any, factor: float, shift: float = 0.0, out: Path | None = None, **options: Any) -> OrbitStore:
    return harvest(Mapped(factor, shift), "layer", images, "D4", out=out, **(SETTINGS | options))


@pytest.mark.parametrize(
    ("dtype", "factor", "shift"),
    [
        ("float16", 1e-7, 0.0),
        ("float16", 1e-30, 0.0),
        ("float16", 0.01, 1000.0),
        ("bfloat16", 0.01, 1000.0),
        ("bfloat16", 1.0, 100.0),
    ],
)
def test_what_a_dtype_can_not_hold_is_refused_before_it_is_written(
    folder: Path, tmp_path: Path, dtype: str, factor: float, shift: float
) -> None:
    message = rf"dtype: rounded to {dtype}, the activations lose \d+\.\d\d% of their variance .*dtype=\"float32\""
    with pytest.raises(DataError, match=message):
        mapped(folder, factor, shift, tmp_path / "store", dtype=dtype)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["index.json"]
    with pytest.raises(DataError, match=message):
        mapped(folder, factor, shift, dtype=dtype)
    # The remedy works in the same directory.
    store = mapped(folder, factor, shift, tmp_path / "store", dtype="float32")
    assert len(store.image_names) == 7
    assert float(store[:].double().var()) > 0


@pytest.mark.parametrize(
    ("dtype", "factor", "shift"),
    [("float16", 1.0, 0.0), ("float16", 1e-3, 0.0), ("float16", 1.0, 10.0), ("bfloat16", 1e-7, 0.0)],
)
def test_what_a_dtype_can_hold_is_stored(folder: Path, dtype: str, factor: float, shift: float) -> None:
    store = mapped(folder, factor, shift, dtype=dtype)
    exact = mapped(folder, factor, shift, dtype="float32")[:]
    lost = (store[:] - exact).double().square().sum()
    spread = (exact.double() - exact.double().mean((0, 1))).square().sum()
    assert 0 < lost < 1e-3 * spread
    recorded = [record["rounding"] for record in store.index["shards"]]
    assert sum(sums["lost"] for sums in recorded) == pytest.approx(float(lost), rel=1e-6)
    assert 0.5 * spread < sum(sums["spread"] for sums in recorded) <= spread * (1 + 1e-6)


def test_constant_activations_have_nothing_to_lose(folder: Path) -> None:
    for factor, shift in ((0.0, 0.1), (0.0, 0.0), (1e-9, 0.1)):
        assert len(mapped(folder, factor, shift, dtype="float16"))


def test_sums_of_a_shard_are_those_of_its_values() -> None:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(4, 3, 2, generator=generator) + torch.randn(2, generator=generator) for _ in range(3)]
    rounding = Rounding()
    for image in images:
        rounding.add(image, image.half())
    values = torch.stack(images).double()
    sums = rounding.sums()
    assert sums["size"] == pytest.approx(float(values.square().sum()))
    assert sums["spread"] == pytest.approx(float((values - values.mean((0, 1, 2))).square().sum()))
    assert sums["lost"] == pytest.approx(float((values.half().double() - values).square().sum()))


def test_a_loss_counts_over_all_shards() -> None:
    good, bad = {"lost": 0.0, "spread": 1.0, "size": 1.0}, {"lost": 0.0015, "spread": 1.0, "size": 1.0}
    check_loss([good, bad], "float16")
    with pytest.raises(DataError, match=r"lose 0\.15% of their variance .* more than 0\.1%"):
        check_loss([bad], "float16")
    with pytest.raises(DataError, match="lose 100"):
        check_loss([{"lost": 5.0, "spread": 1.0, "size": 1.0}], "float16")


def test_a_later_shard_leaves_those_before_it(tmp_path: Path) -> None:
    """The activations of later images lie far from zero and close together."""
    images = torch.cat([noise(2, 64), 0.01 * noise(6, 64)])
    model = Mapped(1.0, 3001.0, dim=True)  # float16 has 3000 and 3002
    options = SETTINGS | {"input_size": None, "forward_batch": 8}
    with pytest.raises(DataError, match="The shard was not written"):
        harvest(model, "layer", images, "D4", out=tmp_path / "store", **options)
    index = json.loads((tmp_path / "store" / "index.json").read_text())
    assert 1 <= len(index["shards"]) < 4
    before = contents(tmp_path / "store")
    with pytest.raises(DataError, match="The shard was not written"):
        harvest(model, "layer", images, "D4", out=tmp_path / "store", **options)
    assert contents(tmp_path / "store") == before


def test_a_store_of_before_has_no_sums_and_goes_on(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "store")
    whole = contents(tmp_path / "store")
    index = json.loads(whole["index.json"])
    del index["shards"][0]["rounding"]
    begun = index | {"complete": False, "shards": index["shards"][:1], "cursor": 2}
    (tmp_path / "store" / "index.json").write_text(json.dumps(begun))
    run(folder, tmp_path / "store")
    again = contents(tmp_path / "store")
    assert {name: again[name] for name in again if name != "index.json"} == {
        name: whole[name] for name in whole if name != "index.json"
    }
