"""The view that a store was harvested through, made again from the same model."""

from __future__ import annotations

import os

import torch
from torch import nn

from groupcc.devices import move
from groupcc.errors import argument_error
from groupcc.groups import PlaneAction, as_action
from groupcc.harvesting.store import OrbitStore
from groupcc.views import ImageKind, LayerView
from groupcc.views.layer_view import measured_view
from groupcc.views.preprocess import Preprocess, PreprocessLike, parse_preprocess
from groupcc.views.resolve import resolve

__all__ = ["view_again"]


def view_again(
    store: OrbitStore,
    model: nn.Module | str,
    weights: str | os.PathLike[str] | None = None,
    *,
    preprocess: PreprocessLike = None,
    device: str | torch.device | None = None,
    channels: int = 3,
) -> LayerView:
    """Returns the view that a store was harvested through, for images that fill its canvas as photographs do.

    `model`, `weights`, `preprocess`: as given to `harvest` then; `preprocess` is needed only if it was a callable.

    Raises:
        ArgumentError: another model, other weights or another preprocessing than the store's.
    """
    settings = store.index["settings"]
    resolved = resolve(model, weights)
    if resolved.fingerprint != settings["fingerprint"]:
        got = f"{resolved.name} with other weights or of another architecture"
        expected = f"the model that the orbits were harvested from ({store.model_name})"
        raise argument_error("model", expected=expected, got=got, remedy="Give the same model and weights.")
    move(resolved.model, device)
    return measured_view(
        resolved,
        store.layer,
        as_action(store.group, settings.get("action", PlaneAction.kind)),
        ImageKind(channels),
        settings["orbit"],
        {
            "input_size": store.geometry.input_size,
            "preprocess": _preprocess(store, preprocess),
            "interpolation": settings["interpolation"],
            "lattice": store.lattice,
            "margin": settings["margin"],
        },
    )


def _preprocess(store: OrbitStore, given: PreprocessLike) -> Preprocess:
    """Returns the store's preprocessing. A callable must be given again: the store has only its name."""
    described = store.index["settings"]["preprocess"]
    recorded = None if described is None or isinstance(described, str) else (described["mean"], described["std"])
    pixels = parse_preprocess(recorded if given is None else given, None)
    # As JSON gives it back, lists and all: what the store holds is from there.
    if pixels.describe() != described:
        raise argument_error(
            "preprocess", expected=f"that of the orbits, {described}", got=pixels.describe(), remedy="Give it as then."
        )
    return pixels
