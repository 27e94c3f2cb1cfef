"""What several tests of the comparison use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def digest() -> Callable[[Path], str]:
    return lambda file: hashlib.sha256(file.read_bytes()).hexdigest()
