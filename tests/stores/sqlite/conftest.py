"""What all tests of the SQLite store stand on."""

from __future__ import annotations

import pytest

from chatproto.stores.sqlite import file


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for a file that another connection has locked."""
    monkeypatch.setattr(file, "BUSY", 0.05)
