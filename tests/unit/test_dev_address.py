"""The address of `midwatch dev`: a program in the same folder finds the fleet, and a file that was left behind is noticed."""

from __future__ import annotations

import json
import logging

import pytest

from midwatch.workers import dev_address
from midwatch.workers.cli.commands.settings import list_settings
from midwatch.workers.dev_address import DevRuns, find_address, lock_address, remove_left_behind
from midwatch.workers.settings import Settings

ADDRESS = {"redis_url": "redis://127.0.0.1:7007/0", "prefix": "abc", "pid": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, and no address in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("MIDWATCH_REDIS_URL", "MIDWATCH_PREFIX", "MIDWATCH_DEV_DIR"):
        monkeypatch.delenv(name, raising=False)
    dev_address._warn_once.cache_clear()
    return tmp_path


def test_a_program_in_the_same_folder_finds_the_fleet(folder):
    """Address and prefix of the fleet are used. `midwatch settings` names the file."""
    with lock_address() as file:
        file.write(ADDRESS)
        found = Settings()
        assert (found.redis_url, found.prefix) == (ADDRESS["redis_url"], "abc")
        shown = {entry["name"]: entry["from"] for entry in list_settings(found)}
        assert (shown["redis_url"], shown["broker_url"]) == (".midwatch/dev.json", "default")
    assert not (folder / ".midwatch" / "dev.json").exists()
    assert Settings().redis_url == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize("where", ["environment", "file", "argument", "empty"])
def test_an_address_that_is_set_wins(folder, monkeypatch, where):
    """Then the prefix of the file is not used either, because it belongs to the other server."""
    url, given = "redis://elsewhere:6379/0", {}
    if where == "environment":
        monkeypatch.setenv("MIDWATCH_REDIS_URL", url)
    elif where == "file":
        (folder / "midwatch.toml").write_text(f'redis_url = "{url}"\n')
    elif where == "argument":
        given = {"redis_url": url}
    with lock_address() as file:
        if where == "empty":  # `dev` has started, its server has not
            url = "redis://127.0.0.1:6379/0"
        else:
            file.write(ADDRESS)
        found = Settings(**given)
    assert (found.redis_url, found.prefix) == (url, "mw")


def test_a_file_left_behind_is_ignored_and_said_once(folder, caplog):
    """After a SIGKILL the file stays, but no process holds its lock."""
    (folder / ".midwatch").mkdir()
    (folder / ".midwatch" / "dev.json").write_text(json.dumps(ADDRESS))
    with caplog.at_level(logging.WARNING, "midwatch"):
        assert (find_address(), find_address()) == ({}, {})
    (record,) = caplog.records
    assert "the `midwatch dev` that wrote it has ended" in record.getMessage()
    remove_left_behind()
    assert not (folder / ".midwatch" / "dev.json").exists()


def test_a_second_dev_in_one_folder_is_refused():
    """The file of the first one stays, and stays valid."""
    with lock_address() as file:
        file.write(ADDRESS)
        with pytest.raises(DevRuns), lock_address():
            pass
        remove_left_behind()
        assert find_address() == {"redis_url": ADDRESS["redis_url"], "prefix": "abc"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"redis_url": 7}', '{"other": "x"}'])
def test_a_file_without_an_address_gives_none(text):
    """What is not an address is left out. Nothing is raised."""
    with lock_address() as file:
        file.path.write_text(text)
        assert find_address() == {}


def test_the_folder_can_be_chosen(folder, monkeypatch):
    """MIDWATCH_DEV_DIR moves the data, the logs and the file."""
    monkeypatch.setenv("MIDWATCH_DEV_DIR", str(folder / "else" / "where"))
    with lock_address() as file:
        assert file.path == folder / "else" / "where" / "dev.json"
