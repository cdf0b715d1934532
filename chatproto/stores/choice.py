"""Which store the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chatproto.settings import MEMORY, Settings
from chatproto.stores import Store
from chatproto.stores.memory import memory_store
from chatproto.stores.sqlite import sqlite_store
from chatproto.stores.sqlite.file import StoreFile
from chatproto.stores.sqlite.retention import Keep


def file_for(settings: Settings) -> StoreFile | None:
    """Return the file that the store is to be in, None for a store in memory."""
    if settings.store == MEMORY:
        return None
    return StoreFile(settings.store, durability=settings.durability)


def store_for(
    settings: Settings, reactor: Any, now: Callable[[], float], file: StoreFile | None
) -> Store:
    """Return the store in `file`, or in memory; it is opened when its log is started.

    A store in a file needs a reactor with threads; `now` returns the Unix time in seconds.
    """
    if file is None:
        return memory_store(reactor, now)
    keep = Keep(settings.retain_seconds, settings.retain_lines)
    return sqlite_store(reactor, now, file, keep=keep if settings.history == "on" else None)
