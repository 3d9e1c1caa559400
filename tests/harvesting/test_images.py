"""Every kind of image: converted, or skipped by name with a reason; too many skipped is an error."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from groupcc.errors import ArgumentError, DataError, GroupccWarning
from groupcc.harvesting import OrbitStore, harvest
from groupcc.harvesting.decode import UnusableImageError, decode_array, decode_file, square
from helpers.nets import TinyNet, noise, write_photographs

SIDE = 40


def ramp(low: int = 0, high: int = 255) -> np.ndarray:
    """A horizontal ramp, so that orientation and scale show."""
    return np.tile(np.linspace(low, high, SIDE), (SIDE, 1))


def colours() -> Image.Image:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, : SIDE // 2, 0], pixels[:, SIDE // 2 :, 2] = 200, 200
    return Image.fromarray(pixels)


def decoded(path: Path) -> np.ndarray:
    image = decode_file(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


# Converted


def test_grey_and_one_bit(tmp_path: Path) -> None:
    Image.fromarray(ramp().astype(np.uint8)).save(tmp_path / "grey.png")
    pixels = decoded(tmp_path / "grey.png")
    assert (pixels[..., 0] == ramp().astype(np.uint8)).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    Image.fromarray(ramp() > 127).save(tmp_path / "bits.png")
    assert set(np.unique(decoded(tmp_path / "bits.png"))) == {0, 255}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(ramp(0, 65535).astype(np.uint16)).save(path)
    pixels = decoded(path)[0, :, 0]
    assert pixels[0] == 0
    assert pixels[-1] == 255
    assert abs(pixels[SIDE // 2] - 130) < 3


def test_floating_point_tiff(tmp_path: Path) -> None:
    Image.fromarray(ramp(0, 1).astype(np.float32)).save(tmp_path / "unit.tif")
    assert decoded(tmp_path / "unit.tif")[0, -1].tolist() == [255, 255, 255]
    Image.fromarray(ramp(-3, 900).astype(np.float32)).save(tmp_path / "wild.tif")
    with pytest.raises(UnusableImageError, match="-3 to 900"):
        decode_file(tmp_path / "wild.tif")


def test_cmyk_palette_and_ycbcr(tmp_path: Path) -> None:
    original = np.asarray(colours()).astype(int)
    colours().convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    colours().convert("CMYK").save(tmp_path / "print.tif")
    colours().quantize(8).save(tmp_path / "palette.png")
    colours().save(tmp_path / "photo.jpg", quality=95)
    for name in ("print.jpg", "print.tif", "palette.png", "photo.jpg"):
        assert np.abs(decoded(tmp_path / name)[5:-5, 5:15] - original[5:-5, 5:15]).max() < 12, name


def test_lab(tmp_path: Path) -> None:
    lab = Image.merge("LAB", [Image.new("L", (SIDE, SIDE), value) for value in (255, 128, 128)])
    lab.save(tmp_path / "lab.tif")
    assert decoded(tmp_path / "lab.tif").min() > 240


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white(tmp_path: Path, mode: str) -> None:
    image = colours().convert("RGBA")
    image.paste((9, 9, 9, 0), (0, 0, SIDE // 2, SIDE))
    if mode == "P":
        image = image.quantize(4)
    elif mode == "LA":
        image = image.convert("LA")
    image.save(tmp_path / "clear.png")
    assert decoded(tmp_path / "clear.png")[:, : SIDE // 2 - 1].min() > 250
    assert decoded(tmp_path / "clear.png")[:, SIDE // 2 + 1 :].min() < 100


def test_exif_orientation_is_applied_and_damaged_exif_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90° clockwise to show
    Image.fromarray(ramp().astype(np.uint8)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels = decoded(tmp_path / "turned.jpg")[..., 0]
    assert pixels[0].mean() < 20
    assert pixels[-1].mean() > 235
    Image.fromarray(ramp().astype(np.uint8)).save(tmp_path / "odd.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # thousands of photographs have such EXIF; Pillow would warn of each
        assert decoded(tmp_path / "odd.jpg").shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_the_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    path = tmp_path / f"moving{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    assert decoded(path)[3, 3].tolist() == [255, 0, 0]


def test_the_square_is_the_middle_and_shrinking_low_passes() -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 255
    assert square(Image.fromarray(wide), 64).min() == 255
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = square(Image.fromarray(checks).convert("RGB"), 64)
    assert np.ptp(shrunk[8:-8, 8:-8].astype(int)) < 8


# Skipped


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size; its pixels would only be missed on decoding."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def damaged(folder: Path) -> dict[str, str]:
    """Files that can't be used, each with what the reason must say."""
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(good, "PNG")
    (folder / "cut.png").write_bytes(good.getvalue()[: len(good.getvalue()) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (folder / "large.png").write_bytes(png_header(12_000, 12_000))
    Image.new("RGB", (3, 3)).save(folder / "dot.png")
    return {
        "bomb.png": "over the cap",
        "cut.png": "can't be decoded",
        "dot.png": "3 x 3 pixels, under",
        "empty.jpg": "empty file",
        "large.png": "12000 x 12000 pixels, over the cap of 100000000",
        "text.jpg": "can't be decoded",
    }


def quiet(images: object, **options: object) -> OrbitStore:
    defaults = {"positions": "centre", "input_size": 48, "progress": False}
    return harvest(TinyNet(), "body", images, "C2", **(defaults | options))  # type: ignore[arg-type]


def test_damaged_files_are_skipped_by_name_and_the_rest_is_as_without_them(tmp_path: Path) -> None:
    write_photographs(tmp_path / "clean", 3)
    write_photographs(tmp_path / "mixed", 3)
    reasons = damaged(tmp_path / "mixed")
    store = quiet(tmp_path / "mixed")
    assert {entry["name"] for entry in store.skipped} == set(reasons)
    for entry in store.skipped:
        assert reasons[entry["name"]] in entry["reason"]
    clean = quiet(tmp_path / "clean")
    assert store.image_names == clean.image_names == [f"photo-{i:02d}.png" for i in range(3)]
    assert torch.equal(store[:], clean[:])


def test_too_many_skipped_is_an_error_that_lists_them(tmp_path: Path) -> None:
    write_photographs(tmp_path, 3)
    damaged(tmp_path)
    with pytest.raises(DataError, match=r"max_skipped=2: bomb.png \(.*; cut.png \(.*; dot.png"):
        quiet(tmp_path, max_skipped=2)
    for index in range(6):
        (tmp_path / f"also-{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match="max_skipped=10"):
        quiet(tmp_path)


def test_no_usable_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image could be used: empty.png \(empty file\)"):
        quiet(tmp_path)


def test_the_pixel_cap_is_read_from_the_header(tmp_path: Path) -> None:
    write_photographs(tmp_path, 1, side=96)
    assert len(quiet(tmp_path, max_pixels=96 * 104)) == 1
    with pytest.raises(DataError, match="over the cap of 9983"):
        quiet(tmp_path, max_pixels=96 * 104 - 1)


# Sources


def test_a_folder_is_searched_below_in_path_order(tmp_path: Path) -> None:
    write_photographs(tmp_path / "cats", 2)
    write_photographs(tmp_path / "birds" / "small", 1)
    write_photographs(tmp_path / ".hidden", 1)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._photo.png").write_bytes(b"another program's")
    (tmp_path / "drawing.eps").write_text("%!PS")
    store = quiet(tmp_path)
    assert store.skipped == []
    assert store.image_names == ["birds/small/photo-00.png", "cats/photo-00.png", "cats/photo-01.png"]


@pytest.mark.parametrize("wrap", [list, iter, lambda items: [("n" + str(i), item) for i, item in enumerate(items)]])
def test_arrays_pictures_paths_and_pairs_give_the_same(tmp_path: Path, wrap: Callable) -> None:
    write_photographs(tmp_path, 3)
    paths = sorted(tmp_path.iterdir())
    pictures = [Image.open(path) for path in paths]
    arrays = [np.asarray(picture) for picture in pictures]
    expected = quiet(tmp_path)[:]
    for items in (paths, pictures, arrays, [paths[0], pictures[1], arrays[2]]):
        store = quiet(wrap(items))
        assert torch.equal(store[:], expected)
    assert torch.equal(quiet(np.stack(arrays))[:], expected)


def test_dataset_items_with_labels_and_failures() -> None:
    class Dataset:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            if index == 2:
                raise OSError("lost")
            return Image.fromarray(np.full((50, 50, 3), 40 * index, np.uint8)), 7

    store = quiet(Dataset())
    assert len(store) == 3
    assert store.skipped == [{"index": 2, "name": "image-000002", "reason": "the source failed (OSError: lost)"}]


def test_tensors_are_used_as_they_are() -> None:
    images = noise(3, 64)
    expected = quiet(images, input_size=None)[:]
    assert torch.equal(quiet(list(images), input_size=None)[:], expected)
    assert torch.equal(quiet(iter(images), input_size=None)[:], expected)
    scaled = quiet(images * 7 - 3, input_size=None, preprocess=((-3.0,) * 3, (7.0,) * 3))
    assert torch.allclose(scaled[:], expected, atol=2e-3)
    assert scaled.canvas(1).min() == 0
    assert scaled.canvas(1).max() == 255
    levels = (images * 255).round().to(torch.uint8)
    assert torch.equal(quiet(levels, input_size=None)[:], quiet(levels.float() / 255, input_size=None)[:])


def test_a_named_model_normalises_photographs_and_bytes_but_not_values() -> None:
    pytest.importorskip("torchvision")
    images = noise(1, 64)
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    photograph = (images[0] * 255).byte().permute(1, 2, 0).numpy()
    for source, expected in ((images, None), ((images * 255).byte(), imagenet), ([photograph], imagenet)):
        with pytest.warns(GroupccWarning, match="random weights"):
            store = harvest(
                "squeezenet1_1", "features.0", source, "C1", weights="random", input_size=64, progress=False
            )
        assert store.index["settings"]["preprocess"] == expected


def test_tensors_of_another_size_or_not_finite_are_skipped() -> None:
    images = [noise(1, 64)[0], noise(1, 65)[0], torch.full((3, 64, 64), torch.nan), np.zeros((64, 64, 3), np.uint8)]
    store = quiet(images, input_size=None)
    assert [entry["index"] for entry in store.skipped] == [1, 2, 3]


def test_arrays_of_odd_kinds() -> None:
    assert decode_array(np.full((9, 9), 65535, np.uint16)).getpixel((0, 0)) == (255, 255, 255)
    assert decode_array(np.full((9, 9, 1), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert decode_array(np.zeros((9, 9, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255)
    for wrong in (np.zeros((9, 9, 2), np.uint8), np.full((9, 9), 2.0), np.full((9, 9), -1), np.zeros((9, 9), complex)):
        with pytest.raises(UnusableImageError):
            decode_array(wrong)


@pytest.mark.parametrize(
    "images",
    [None, 5, [], {}, b"", torch.zeros(3, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.int64), np.zeros((64, 64, 3))],
)
def test_what_is_no_source_of_images(images: object) -> None:
    with pytest.raises(ArgumentError, match="images"):
        quiet(images)


def test_folders_that_are_missing_or_hold_no_images(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="doesn't exist"):
        quiet(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ArgumentError, match="with none"):
        quiet(tmp_path)


def test_nan_from_the_model_names_image_and_element() -> None:
    net = TinyNet()
    images = noise(3, 64)
    images[1, :, 40:, :] = 1e30  # squares overflow below
    net.second.forward = lambda x: x * x  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"NaN or infinity for image 'image-000001' under element e\b"):
        harvest(net, "second", images, "C2", positions="centre", progress=False)
