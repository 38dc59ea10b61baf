"""The file in which `midwatch dev` says where its fleet is, so that programs started in the same folder find it.

`dev` holds a lock on the file as long as it runs. The kernel releases the lock when `dev` ends, also after a SIGKILL. So a
reader can tell a file that is in use from one that was left behind. The file only helps where no address is set: the
environment and `midwatch.toml` win.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

NAME = "dev.json"

USED = ("redis_url", "prefix")
"""The settings that are read from the file."""


def dev_folder() -> Path:
    """Return the folder of `midwatch dev`: its data, its logs and the file with its address."""
    return Path(os.environ.get("MIDWATCH_DEV_DIR", ".midwatch"))


class DevRuns(Exception):
    """Raised when another `midwatch dev` runs in this folder."""


class AddressFile:
    """The locked file. It is empty until `write`."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    def write(self, address: Mapping[str, object]) -> None:
        """Write the settings by which other programs reach this fleet."""
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(dict(address), indent=1).encode() + b"\n", 0)


@contextmanager
def lock_address() -> Iterator[AddressFile]:
    """Hold the lock on the file during the block. The file is removed at the end.

    Raises:
        DevRuns: another process publishes its address in this folder.

    """
    import fcntl

    path = dev_folder() / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DevRuns(str(path)) from error
        try:
            os.ftruncate(handle, 0)
            yield AddressFile(path, handle)
        finally:
            with suppress(FileNotFoundError):
                path.unlink()
    finally:
        os.close(handle)


def find_address() -> dict[str, str]:
    """Return the settings of the `midwatch dev` that runs in this folder. Empty if none runs.

    A file that was left behind is ignored, with a warning in the log.
    """
    path = dev_folder() / NAME
    if not path.is_file():
        return {}
    if not is_in_use(path):
        _warn_once(str(path))
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # `dev` ends or starts at this moment
        return {}
    return {name: found[name] for name in USED if isinstance(found, dict) and isinstance(found.get(name), str)}


def remove_left_behind() -> None:
    """Remove the file of a `dev` that was killed. A file that is in use stays."""
    path = dev_folder() / NAME
    if path.is_file() and not is_in_use(path):
        path.unlink(missing_ok=True)


def is_in_use(path: Path) -> bool:
    """Does a running process hold the lock on the file?"""
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(handle)


@cache
def _warn_once(path: str) -> None:
    logging.getLogger("midwatch").warning(
        "midwatch: %s is ignored: the `midwatch dev` that wrote it has ended; remove the file, or start `midwatch dev`",
        path,
    )
