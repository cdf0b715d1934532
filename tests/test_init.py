"""The public face, and the way the imports point."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import chatproto

PACKAGE = Path(chatproto.__file__).parent

CORE = [
    "model",
    "errors",
    "text",
    "codec",
    "pacing",
    "stores",
    "stores.memory",
    "stores.recent",
    "stores.ring",
    "stores.words",
    "session",
    "cursor",
    "room",
    "past",
    "accounts",
    "moderation",
    "hub",
    "commands",
    "commands.account",
    "commands.moderation",
    "commands.rooms",
    "commands.shared",
    "commands.talk",
]
"""The modules of the core, and those that may not know more than it."""

KNOWN_TO_CORE = ["outbox", "address", "passwords", "threads"]
"""What the core uses without being free of transports, addresses and threads itself."""

TWISTED_IN_CORE = {
    "twisted.cred.checkers",
    "twisted.cred.credentials",
    "twisted.cred.error",
    "twisted.internet.defer",
    "twisted.internet.interfaces",
    "twisted.logger",
    "twisted.python.failure",
}
"""What of Twisted the core may use: results that take time, interfaces, words in the log, and how
programs ask one another who somebody is.
"""

STANDARD_IN_CORE = {
    "__future__",
    "bisect",
    "collections",
    "contextlib",
    "enum",
    "inspect",
    "ipaddress",
    "itertools",
    "operator",
    "re",
    "sys",
    "types",
    "typing",
    "unicodedata",
}
"""What of the standard library the core may use: nothing that knows of time or the network."""

CALENDAR = {"time.localtime", "time.strftime"}
"""What the core may use of the module that also has the clock: how a time is written."""


def modules() -> dict[str, Path]:
    """Return the file of each module of the package, by its full name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of each module that a file imports when it is imported itself."""
    for node in _run_on_import(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert not node.level, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES or _is_module(name) else node.module


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below `node` but for functions and what is there for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _run_on_import(child)


def _is_module(name: str) -> bool:
    parent = name.rpartition(".")[0]
    if not parent.startswith("twisted"):
        return False
    spec = find_spec(parent)
    return (
        spec is not None and spec.submodule_search_locations is not None and bool(find_spec(name))
    )


def test_the_public_face() -> None:
    """The package offers the factory, its settings and the version, and nothing more."""
    assert sorted(chatproto.__all__) == ["ChatFactory", "Settings", "__version__"]
    offered = {
        name
        for name, value in vars(chatproto).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert offered == {"ChatFactory", "Settings"}


def test_the_version() -> None:
    """The version is one that packages can have."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", chatproto.__version__)


def test_the_package_is_typed() -> None:
    """Type checkers of other programs take our types."""
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("module", ["chatproto", "chatproto.tap", "chatproto.testing"])
def test_importing_installs_no_reactor(
    module: str, in_a_fresh_python: Callable[[str], str]
) -> None:
    """Whoever imports us can still choose a reactor."""
    code = f"import sys, {module}; print('twisted.internet.reactor' in sys.modules)"
    assert in_a_fresh_python(code) == "False\n"


@pytest.mark.parametrize("module", CORE)
def test_the_core_knows_no_transport(module: str) -> None:
    """The core imports no protocol, no socket, no reactor and no clock: they are passed in."""
    names = set(imports(MODULES[f"chatproto.{module}"]))
    ours = {name for name in names if name.split(".")[0] == "chatproto"}
    assert ours <= {f"chatproto.{name}" for name in [*CORE, *KNOWN_TO_CORE]}
    others = names - ours
    assert {name for name in others if name.startswith("twisted")} <= TWISTED_IN_CORE
    rest = {name.split(".")[0] for name in others if not name.startswith(("twisted", "zope"))}
    if "time" in rest:
        used = re.findall(r"\btime\.\w+", MODULES[f"chatproto.{module}"].read_text("utf-8"))
        assert set(used) <= CALENDAR
    assert rest - {"time"} <= STANDARD_IN_CORE


def test_stores_know_only_the_model() -> None:
    """Stores import the model, the errors, how names are compared, and each other's parts; but for
    the choice between them nothing else of ours.
    """
    known = {"chatproto.model", "chatproto.errors", "chatproto.text"}
    for name, path in MODULES.items():
        if name.startswith("chatproto.stores") and name != "chatproto.stores.choice":
            ours = {other for other in imports(path) if other.startswith("chatproto")}
            assert {other for other in ours if not other.startswith("chatproto.stores")} <= known


def test_the_choice_is_no_store() -> None:
    """No store knows of the settings, nor of the module that chooses by them."""
    for name, path in MODULES.items():
        if name.startswith("chatproto.stores") and name != "chatproto.stores.choice":
            assert "chatproto.stores.choice" not in set(imports(path))


def test_stores_are_apart() -> None:
    """Only the choice knows both kinds of store; the memory store knows nothing of the file."""
    for name in ("memory", "recent", "ring", "words"):
        others = set(imports(MODULES[f"chatproto.stores.{name}"]))
        assert not {other for other in others if other.startswith("chatproto.stores.sqlite")}


def test_arrows_point_one_way() -> None:
    """No module imports, over however many others, one that imports it."""
    graph = {
        name: {other for other in imports(path) if other in MODULES and other != "chatproto"}
        for name, path in MODULES.items()
    }
    order = [*TopologicalSorter(graph).static_order()]  # raises CycleError when there is a circle
    assert set(order) == set(MODULES)


def test_only_the_edge_imports_the_reactor() -> None:
    """Time and reactor arrive as arguments: no module imports the reactor when it is imported."""
    assert not [
        name for name, path in MODULES.items() if "twisted.internet.reactor" in imports(path)
    ]
