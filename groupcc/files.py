"""Writing files so that a reader never sees half of one: temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupcc.errors import DataError, argument_error

if TYPE_CHECKING:
    import torch

__all__ = [
    "atomic_directory",
    "atomic_write",
    "canonical_hash",
    "directory_lock",
    "read_json",
    "save_tensors",
    "sha256_file",
    "write_json",
]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear_leftovers(target: Path) -> None:
    """Removes what writers of `target` that were killed have left beside it."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"[^.]+\.(tmp|old)")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _fsync_directory(path: Path) -> None:
    if os.name == "posix":
        _fsync(path)


@contextlib.contextmanager
def atomic_directory(target: str | Path, own: Collection[str]) -> Iterator[Path]:
    """Yields an empty temporary directory beside `target`; on success it is fsynced and renamed to `target`.

    An existing `target` is replaced if it holds nothing but files named in `own`; between the two renames it is briefly
    absent, never half-written. On an exception the temporary directory is removed and `target` is left as it was.

    Raises:
        ArgumentError: `target` is a file, or holds files that would be lost with it.
    """
    # Resolved: `.` has no name to rename, and what a link points to is replaced rather than the link.
    target = Path(target).resolve()
    _check_replaceable(target, own)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            _fsync(path)
        _fsync(temporary)
        # mkdtemp makes it private to the user; a finished directory gets the permissions any other would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
            target.rename(old / target.name)
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
        _fsync_directory(target.parent)
        _clear_leftovers(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def directory_lock(folder: Path, doing: str) -> Iterator[None]:
    """Held until the block or the process ends, however it ends. Without flock (Windows) there is none.

    Raises:
        DataError: another process holds it; `doing` says at what.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DataError(f"{folder}: another process is {doing}. Wait for it, or choose another.") from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _check_replaceable(target: Path, own: Collection[str]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        got, remedy = f"{str(target)!r}, a file", "Choose another path."
    else:
        strangers = sorted(path.name for path in target.iterdir() if path.name not in own)
        if not strangers:
            return
        got, remedy = f"{str(target)!r}, which holds {', '.join(strangers[:3])}", "They would be lost: choose another."
    expected = f"a new or empty directory, or one with nothing but {', '.join(own)}, which is replaced"
    raise argument_error("directory", expected=expected, got=got, remedy=remedy)


def atomic_write(path: str | Path, data: bytes | memoryview | str) -> None:
    """Writes `data` (text as UTF-8) to `path`, fsynced, in one rename, which is on disk too when this returns."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_directory(path.parent)
        _clear_leftovers(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; NaN and infinity are refused."""
    atomic_write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save_tensors(tensors: dict[str, torch.Tensor], path: str | Path) -> None:
    """Writes a .safetensors file. OSError that names it where that fails, as on a full disk; not atomic by itself."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path)
    except SafetensorError as error:  # its own kind, also for what the system refuses
        raise OSError(f"{path}: {error}") from error


def read_json(path: str | Path) -> Any:
    """The value of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def canonical_hash(value: Any) -> str:
    """Hex SHA-256 of `value` as canonical JSON (sorted keys, no spaces): equal configurations, equal hashes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
