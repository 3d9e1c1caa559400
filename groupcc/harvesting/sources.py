"""Where images come from: a folder, a tensor, or anything that can be iterated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from groupcc.errors import argument_error
from groupcc.files import canonical_hash
from groupcc.harvesting.decode import UnusableImageError, decode_array, decode_file, decode_image
from groupcc.views.fingerprints import tensor_digest
from groupcc.views.options import PHOTOGRAPHS, ImageKind

__all__ = ["Item", "Source", "open_source"]

# Formats that run another program, or that Pillow only knows by name.
_NOT_READ = {"EPS", "WMF", "GRIB", "BUFR", "HDF5", "MPEG", "PDF"}

Picture = Image.Image | torch.Tensor


@dataclass(frozen=True)
class Item:
    """One candidate: `load()` gives an RGB Pillow image or a float [C, H, W], or raises `UnusableImageError`."""

    index: int
    name: str
    load: Callable[[], Picture]


@dataclass(frozen=True)
class Source:
    """A sequence of candidates that can be started anywhere.

    `items(start)` yields them in turn. `at(index)` returns one of them; None if they can only be had in turn.
    `tensor_shape` is (C, H, W) when the items are tensors that go to the model as they are, None for photographs;
    `from_bytes` says that such tensors were uint8 and hold [0, 1]; `count` is None when it isn't known beforehand;
    `fingerprint` changes when the images do, as far as that can be told without reading them; `names` are those of all
    items where they are known beforehand, else none.
    """

    kind: str
    items: Callable[[int], Iterator[Item]]
    at: Callable[[int], Item] | None
    count: int | None
    fingerprint: str | None
    tensor_shape: tuple[int, int, int] | None = None
    from_bytes: bool = False
    names: Sequence[str] = ()

    @property
    def image_kind(self) -> ImageKind:
        """What a view must be for: photographs, or tensors of this shape."""
        if self.tensor_shape is None:
            return PHOTOGRAPHS
        channels, height, width = self.tensor_shape
        return ImageKind(channels, (height, width), ready=not self.from_bytes)


def open_source(images: Any, max_pixels: int) -> Source:
    """A folder or file (str or Path), a tensor [N, C, H, W], or an iterable of images, as a `Source`.

    Raises:
        ArgumentError: none of these, or nothing in it.
    """
    if isinstance(images, (str, os.PathLike)):
        return _folder(Path(images), max_pixels)
    if isinstance(images, torch.Tensor):
        return _tensor(images)
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise argument_error(
            "images",
            expected="an array of photographs [N, H, W, C]",
            got=f"an array of shape {images.shape}",
            remedy="Put a single one in a list: images=[array].",
        )
    if isinstance(images, Iterable) and not isinstance(images, (dict, bytes, Image.Image)):
        return _iterable(images, max_pixels)
    if hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, (dict, bytes)):
        return _iterable(images, max_pixels)
    raise argument_error(
        "images",
        expected="a folder, a tensor [N, C, H, W], or an iterable of images",
        got=f"a {type(images).__name__}",
        remedy="Put a single image in a list: images=[image].",
    )


def _folder(root: Path, max_pixels: int) -> Source:
    if root.is_file():
        files = [root]
        root = root.parent
    elif root.is_dir():
        files = sorted(_image_files(root), key=lambda path: path.relative_to(root).as_posix())
    else:
        raise argument_error(
            "images", expected="a folder of images", got=f"{str(root)!r}, which doesn't exist", remedy="Check the path."
        )
    if not files:
        raise argument_error(
            "images",
            expected="a folder with image files in it or below it",
            got=f"{str(root)!r}, with none",
            remedy="File names must end in an image format's extension, such as .jpg, .png or .webp.",
        )
    names = [path.relative_to(root).as_posix() for path in files]

    def at(index: int) -> Item:
        return Item(index, names[index], partial(decode_file, files[index], max_pixels))

    sizes = [path.stat().st_size for path in files]
    items = partial(_in_turn, at, len(files))
    return Source("photographs", items, at, len(files), canonical_hash([names, sizes]), names=names)


def _in_turn(at: Callable[[int], Item], count: int, start: int) -> Iterator[Item]:
    return map(at, range(start, count))


def _image_files(root: Path) -> Iterator[Path]:
    extensions = Image.registered_extensions()
    readable = {ext for ext, name in extensions.items() if name in Image.OPEN and name not in _NOT_READ}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder) / name
            # Hidden files are other programs' (macOS leaves ._name.jpg beside name.jpg); a pipe would never end.
            if not name.startswith(".") and path.suffix.lower() in readable and path.is_file():
                yield path


def _tensor(images: torch.Tensor) -> Source:
    if images.dim() != 4 or 0 in images.shape or not (images.is_floating_point() or images.dtype == torch.uint8):
        raise argument_error(
            "images",
            expected="a floating-point or uint8 tensor [N, C, H, W] with nothing of size 0",
            got=f"{images.dtype} of shape {tuple(images.shape)}",
            remedy="Add a missing batch axis with images[None].",
        )

    def at(index: int) -> Item:
        return Item(index, _default_name(index), partial(_values, images[index]))

    count, channels, height, width = images.shape
    return Source(
        "tensors",
        partial(_in_turn, at, count),
        at,
        count,
        tensor_digest(images),
        (channels, height, width),
        images.dtype == torch.uint8,
    )


def _iterable(images: Any, max_pixels: int) -> Source:
    indexable = hasattr(images, "__getitem__") and hasattr(images, "__len__")
    if indexable:
        first = _entry(images, 0) if len(images) else None
    else:
        # One look at the first decides whether these are tensors or photographs; it is put back in front.
        iterator = iter(images)
        first = next(iterator, None)
        one_pass = iterator is images

        def entries(start: int) -> Iterator[Any]:
            return islice(chain([first], iterator) if one_pass else iter(images), start, None)

    if first is None:
        raise argument_error("images", expected="at least one image", got="an empty iterable", remedy="Add images.")
    _, picture = _named(first, 0)
    shape: tuple[int, int, int] | None = None
    from_bytes = False
    if isinstance(picture, torch.Tensor):
        _values(picture)  # a wrong first tensor is an error, not a skipped image
        shape = (int(picture.shape[0]), int(picture.shape[1]), int(picture.shape[2]))
        from_bytes = picture.dtype == torch.uint8

    def item(index: int, entry: Any) -> Item:
        name, picture = _named(entry, index)
        return Item(index, name, partial(_load, picture, shape, from_bytes, max_pixels))

    def at(index: int) -> Item:
        return item(index, _entry(images, index))

    kind = "photographs" if shape is None else "tensors"
    if indexable:
        return Source(kind, partial(_in_turn, at, len(images)), at, len(images), None, shape, from_bytes)

    def items(start: int) -> Iterator[Item]:
        return (item(index, entry) for index, entry in enumerate(entries(start), start))

    return Source(kind, items, None, None, None, shape, from_bytes)


def _entry(images: Sequence[Any], index: int) -> Any:
    try:
        return images[index]
    except Exception as error:  # a dataset that fails on one item is asked for the next
        return error


def _named(entry: Any, index: int) -> tuple[str, Any]:
    name: str | None = None
    if isinstance(entry, (tuple, list)) and len(entry) == 2:
        if isinstance(entry[0], str) and not isinstance(entry[1], (int, float)):
            name, entry = entry
        else:
            entry = entry[0]  # (image, label), as torchvision's datasets give
    if isinstance(entry, (str, os.PathLike)):
        return name or Path(entry).as_posix(), Path(entry)
    return name or _default_name(index), entry


def _load(picture: Any, shape: tuple[int, int, int] | None, from_bytes: bool, max_pixels: int) -> Picture:
    if isinstance(picture, Exception):
        raise UnusableImageError(f"the source failed ({type(picture).__name__}: {picture})")
    if isinstance(picture, torch.Tensor):
        if shape is None:
            raise UnusableImageError("a tensor among photographs")
        if tuple(picture.shape) != shape or (picture.dtype == torch.uint8) != from_bytes:
            raise UnusableImageError(f"{picture.dtype} of shape {tuple(picture.shape)}, unlike the first, {shape}")
        return _values(picture)
    if shape is not None:
        raise UnusableImageError(f"a {type(picture).__name__} among tensors")
    if isinstance(picture, Path):
        return decode_file(picture, max_pixels)
    if isinstance(picture, Image.Image):
        return decode_image(picture, max_pixels)
    if isinstance(picture, np.ndarray):
        return decode_array(picture, max_pixels)
    raise UnusableImageError(f"a {type(picture).__name__}, not an image")


def _values(image: torch.Tensor) -> torch.Tensor:
    if image.dim() != 3 or 0 in image.shape or not (image.is_floating_point() or image.dtype == torch.uint8):
        raise argument_error(
            "images",
            expected="tensors [C, H, W], floating point or uint8",
            got=f"{image.dtype} of shape {tuple(image.shape)}",
            remedy="Give batches as one tensor [N, C, H, W], or iterate over single images.",
        )
    values = image.detach().cpu()
    values = values.float() / 255 if image.dtype == torch.uint8 else values.float()
    if not values.isfinite().all():
        raise UnusableImageError("NaN or infinite values")
    return values


def _default_name(index: int) -> str:
    return f"image-{index:06d}"
