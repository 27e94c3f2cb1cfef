"""The key for hashes of identity is made once, readable only by its owner, and never silently replaced."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.state.secret import identity_key, reader_of


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: identity_key(tmp_path), range(32)))
    (path,) = tmp_path.iterdir()
    assert keys == {path.read_bytes()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "another").mkdir()
    assert identity_key(tmp_path / "another") not in keys


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_what_is_no_key_is_told_and_left_alone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(content)
    with pytest.raises(Unavailable, match="is no key"):
        identity_key(tmp_path)
    assert (tmp_path / "identity.key").read_bytes() == content


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    (tmp_path / "identity.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        identity_key(tmp_path)


def test_another_key_is_another_reader() -> None:
    assert len({reader_of("1", b"a"), reader_of("1", b"b"), reader_of("2", b"a")}) == 3
