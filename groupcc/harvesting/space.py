"""Whether a harvest fits where it goes, said before it starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from groupcc.errors import DataError
from groupcc.harvesting.shards import ImageShapes

__all__ = ["check_space", "describe_size", "format_bytes"]

_RESERVE = 32 << 20
"""Left free on the disk beyond the estimate: the index, and whatever else is written meanwhile."""


def format_bytes(count: float) -> str:
    """`512 bytes`, `3.4 MB`, `1.2 GB` (powers of ten)."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{int(count)} bytes"


def describe_size(shapes: ImageShapes, images: int | None) -> str:
    """One line: how many examples of what, and how much room they take."""
    each = f"{shapes.positions} positions x {shapes.order} elements x {shapes.d_in} channels"
    if images is None:
        acts, canvases, what = shapes.orbit_bytes, shapes.image_bytes - shapes.orbit_bytes, "each image: "
    else:
        acts, canvases = images * shapes.orbit_bytes, images * (shapes.image_bytes - shapes.orbit_bytes)
        what = f"{images} images x "
    return f"{what}{each}: {format_bytes(acts)} as {shapes.dtype}, and {format_bytes(canvases)} of pictures"


def check_space(shapes: ImageShapes, images: int | None, out: Path | None) -> None:
    """DataError when that many more images don't fit on the disk (or, without `out`, in the memory)."""
    if images is None:
        return
    needed = images * shapes.image_bytes
    if out is not None:
        free = shutil.disk_usage(out).free
        if needed + _RESERVE > free:
            raise DataError(
                f"{out}: the harvest needs {format_bytes(needed)} and the disk has {format_bytes(free)} free. "
                'Use fewer positions (positions="random:16"), fewer images, a smaller group, or another disk.'
            )
        return
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if needed > 0.8 * memory:
        raise DataError(
            f"the harvest needs {format_bytes(needed)} and this machine has {format_bytes(memory)} of memory. "
            "Give a directory as out=DIR, or use fewer positions or images."
        )
