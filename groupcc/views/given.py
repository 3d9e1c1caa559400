"""The view that a function works with: one that it was given, or one made of a model and a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from groupcc.errors import argument_error
from groupcc.groups import Action, Group, as_action
from groupcc.views.lattice import Lattice
from groupcc.views.layer_view import DEFAULT_GROUP, LayerView, measured_view
from groupcc.views.options import ImageKind, Orbit, ViewOptions
from groupcc.views.resolve import resolve

__all__ = ["view_for"]


def view_for(
    model: nn.Module | str | LayerView,
    layer: str | None,
    group: str | Group | Action | None,
    images: ImageKind,
    orbit: Orbit | None,
    options: ViewOptions,
    known_lattice: Callable[[dict[str, Any]], Lattice | None] = lambda identity: None,
) -> LayerView:
    """The view that a function was given in place of model and layer, for such images; or a new one.

    Raises:
        ArgumentError: something beside a view that it has itself; no layer beside a model; as `LayerView.open`.
    """
    if isinstance(model, LayerView):
        beside = {"layer": layer, "group": group, "orbit": orbit, **options}
        for name, value in beside.items():
            if value is not None:
                raise argument_error(
                    name,
                    expected="nothing beside a LayerView, which has its own",
                    got=value,
                    remedy=f"Leave it out, or give it to LayerView.open ({name}=...).",
                )
        return model.suited(images)
    if layer is None:
        raise argument_error(
            "layer",
            expected="the dotted name of one of the model's modules",
            got="None",
            remedy="Only a LayerView needs no layer beside it.",
        )
    action = as_action(DEFAULT_GROUP if group is None else group)
    resolved = resolve(model, options.get("weights"))
    return measured_view(resolved, layer, action, images, orbit or "input", options, known_lattice)
