"""One photograph, from whatever is in the file to an RGB square, or a reason why not."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

__all__ = ["DEFAULT_MAX_PIXELS", "UnusableImageError", "decode_array", "decode_file", "decode_image", "square"]

DEFAULT_MAX_PIXELS = 100_000_000
MIN_SIDE = 8

UInt8Array = npt.NDArray[np.uint8]


class UnusableImageError(Exception):
    """An image that can't be used; the message is the reason."""


def decode_file(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """An image file as RGB, upright; `UnusableImageError` with the reason when it can't be.

    The size is read from the header before any pixel is decoded. What is converted, and how: `decode_image`.
    """
    if not path.is_file():
        raise UnusableImageError("not a regular file")
    if path.stat().st_size == 0:
        raise UnusableImageError("empty file")
    try:
        with warnings.catch_warnings():
            # Of size our own cap decides, of damage the decoder; Pillow's warnings name no file.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return decode_image(image, max_pixels)
    except UnusableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnusableImageError(f"over the cap of {max_pixels} pixels ({error})") from error
    except Exception as error:
        # Decoders raise nearly anything on damaged data (OSError, SyntaxError, struct.error, ValueError, ...).
        raise UnusableImageError(f"can't be decoded ({type(error).__name__}: {_one_line(error)})") from error


def decode_image(image: Image.Image, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """A Pillow image as RGB, upright: the first frame of an animation, the EXIF orientation applied.

    16-bit greys are divided by 257; floating point is taken as [0, 1]; transparency is laid over white; palettes,
    greys, CMYK, YCbCr and LAB are converted by Pillow.
    """
    width, height = image.size
    if width * height > max_pixels:
        raise UnusableImageError(f"{width} x {height} pixels, over the cap of {max_pixels}")
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(f"{width} x {height} pixels, under {MIN_SIDE} on a side")
    try:
        image.load()
        with contextlib.suppress(Exception):  # damaged EXIF is no reason to lose the picture
            image = ImageOps.exif_transpose(image)
        return _rgb(image)
    except UnusableImageError:
        raise
    except Exception as error:
        raise UnusableImageError(f"can't be decoded ({type(error).__name__}: {_one_line(error)})") from error


def decode_array(array: np.ndarray, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """A photograph as an array, HW or HWC with 1, 3 or 4 channels: uint8, uint16, bool, or float in [0, 1]."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise UnusableImageError(f"an array of shape {array.shape}, neither HW nor HWC with 1, 3 or 4 channels")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise UnusableImageError(f"{array.shape[1]} x {array.shape[0]} pixels, over the cap of {max_pixels}")
    if min(array.shape[:2]) < MIN_SIDE:
        raise UnusableImageError(f"{array.shape[1]} x {array.shape[0]} pixels, under {MIN_SIDE} on a side")
    return _rgb(Image.fromarray(_eight_bits(array)))


def square(image: Image.Image, side: int) -> UInt8Array:
    """The largest centred square of an RGB image, resized to side x side (Lanczos, which also low-passes)."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    resized = image.resize(
        (side, side), Image.Resampling.LANCZOS, box=(left, top, left + short, top + short), reducing_gap=3.0
    )
    return np.asarray(resized, dtype=np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "LAB":
        from PIL import ImageCms

        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted
    return image.convert("RGB")


def _eight_bits(array: np.ndarray) -> UInt8Array:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if not array.size or not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise UnusableImageError(f"pixels of type {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if np.issubdtype(array.dtype, np.floating):
        if not (low >= 0 and high <= 1):  # NaN fails too
            raise UnusableImageError(f"floating-point pixels from {low:g} to {high:g}, not in [0, 1]")
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise UnusableImageError(f"whole-number pixels from {low:g} to {high:g}, not in 0 to 65535")
    return np.rint(array / 257).astype(np.uint8)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."
