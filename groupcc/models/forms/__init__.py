"""The forms of a dictionary: how its atoms come from parameters. One file a form, one line here.

A new form is a class derived from `groupcc.models.forms.base.Form` in a file of its own. This module imports none of
them before one is asked for: the command line lists the forms without PyTorch.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from groupcc.models.sparsity import sparsity_of

__all__ = ["FORMS", "POSES", "form_kind", "form_of"]

FORMS: dict[bool | str, tuple[str, str]] = {
    True: ("tied", "Tied"),
    False: ("untied", "Untied"),
    "residual": ("residual", "Residual"),
}
"""The values of `CrosscoderConfig.tied`, each with the file of its form and the class there."""

POSES: dict[str | None, str] = {None: "EachLatent", "max": "Strongest", "nms": "Suppressed"}
"""The values of `CrosscoderConfig.pose`, each with its class in `groupcc.models.forms.poses`."""


def form_kind(tied: bool | str) -> Any:
    """Returns the class of a form; KeyError if there is none."""
    module, name = FORMS[tied]
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


@cache
def form_of(tied: bool | str, pose: str | None, sparsity: str) -> Any:
    """Returns the `Form` of a configuration's `tied`, `pose` and `sparsity`, one object for all crosscoders."""
    selection = getattr(importlib.import_module(f"{__name__}.poses"), POSES[pose])
    return form_kind(tied)(selection(sparsity_of(sparsity)))
