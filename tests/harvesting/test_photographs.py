"""Images that show one photograph: the key, what a store says of the key, and what a harvest refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from groupcc.errors import ArgumentError
from groupcc.harvesting import OrbitStore
from groupcc.harvesting.photographs import photograph_keys
from helpers.nets import noise, write_photographs
from helpers.stores import run


@pytest.fixture(scope="module", name="films")
def folders_of_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films")
    for film, frames in (("a", 2), ("b", 1), ("c", 2)):
        write_photographs(path / film, frames)
    return path


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


ROWS = "image,group\na/photo-00.png,x\na/photo-01.png,y\nb/photo-00.png,x\nc/photo-00.png,z\nc/photo-01.png,z\n"


@pytest.mark.parametrize(
    ("groups", "names", "photographs"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        ("parent", ["a", "b", "c"], [0, 0, 1, 2, 2]),
        (r"photo-(\d+)", ["00", "01"], [0, 1, 0, 0, 1]),
        ("^[ab]|c", ["a", "b", "c"], [0, 0, 1, 2, 2]),
        ("table", ["x", "y", "z"], [0, 1, 0, 2, 2]),
    ],
)
def test_a_store_knows_the_photograph_of_each_example(
    films: Path, tmp_path: Path, groups: Any, names: list[str] | None, photographs: list[int]
) -> None:
    if groups == "table":
        groups = table(tmp_path / "groups.csv", ROWS)
    made = run(films, tmp_path / "store", groups=groups, positions="random:3")
    for store in (made, OrbitStore.open(tmp_path / "store"), run(films, groups=groups, positions="random:3")):
        assert store.image_ids.tolist() == [i for i in range(5) for _ in range(3)]
        assert store.photograph_ids.tolist() == [photographs[i] for i in range(5) for _ in range(3)]
        assert store.photograph_names == (names or store.image_names)


def test_a_store_of_before_has_a_photograph_an_image(films: Path, tmp_path: Path) -> None:
    """Its index knows no groups, and a harvest goes on with it as before."""
    run(films, tmp_path / "store", positions="random:3")
    path = tmp_path / "store" / "index.json"
    index = json.loads(path.read_text())
    del index["settings"]["groups"]
    path.write_text(json.dumps(index))
    store = run(films, tmp_path / "store", positions="random:3")
    assert store.photograph_ids.tolist() == store.image_ids.tolist()
    with pytest.raises(ArgumentError, match="groups=None; now groups='parent'"):
        run(films, tmp_path / "store", positions="random:3", groups="parent")


def test_a_moved_table_is_the_same_and_a_changed_one_is_not(films: Path, tmp_path: Path) -> None:
    first = table(tmp_path / "groups.csv", ROWS)
    run(films, tmp_path / "store", groups=first)
    moved = Path(shutil.move(first, tmp_path / "Moved.CSV"))
    run(films, tmp_path / "store", groups=str(moved))
    moved.write_text(ROWS.replace("y", "x"))
    with pytest.raises(ArgumentError, match=r"harvested with groups=\{'csv': "):
        run(films, tmp_path / "store", groups=moved)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("", 'groups: expected "parent", a regular expression'),
        (7, 'groups: expected "parent", a regular expression'),
        ("(", r"groups: expected .*no regular expression .*ends in \.csv"),
        (r"b/(.*)", r"whose first group .*got 'b/\(\.\*\)', with none in 'a/photo-00.png'.* CSV"),
        (r"\d*", r"whose match .*with none in 'a/photo-00.png'"),
        ("nowhere.csv", "groups: expected a CSV file; got 'nowhere.csv', which is none"),
    ],
)
def test_wrong_groups_are_named_before_the_harvest(films: Path, tmp_path: Path, groups: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run(films, tmp_path / "store", groups=groups)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the columns image and group; got .*lacks image and group"),
        ("image,key\na,b\n", "lacks group"),
        ("image,group\na/photo-00.png,\n", "line 2: image 'a/photo-00.png', group ''"),
        ("image,group\na,x\na,y\n", "line 3: image 'a', group 'y'"),
        (
            ROWS.replace("b/photo-00.png,x\n", ""),
            r"a row for every image in .*got none for 'b/photo-00.png'\. Add a row",
        ),
    ],
)
def test_wrong_tables_are_named(films: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run(films, groups=table(tmp_path / "groups.csv", text))


def test_images_in_no_folder_have_no_parent() -> None:
    with pytest.raises(ArgumentError, match=r"every image in a folder .*got 'n0', in none.*regular expression"):
        run([(f"n{i}", image) for i, image in enumerate(noise(2, 64))], groups="parent", input_size=None)


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes("image,group\nä,x\n".encode("latin-1"))
    with pytest.raises(ArgumentError, match="a CSV file in UTF-8"):
        photograph_keys(tmp_path / "groups.csv")
