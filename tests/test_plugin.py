"""What twistd finds of us."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker, ServiceMaker
from twisted.plugin import IPlugin

import chatproto.tap

PLUGIN = Path(chatproto.__file__).parents[1] / "twisted" / "plugins" / "chat_plugin.py"


@pytest.fixture
def maker() -> ServiceMaker:
    """Return what the plugin module offers."""
    spec = spec_from_file_location("chat_plugin", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (maker,) = (value for value in vars(module).values() if isinstance(value, ServiceMaker))
    return maker


def test_it_is_a_plugin_for_twistd(maker: ServiceMaker) -> None:
    """It is called chat, and says in one line what it is."""
    assert IPlugin.providedBy(maker)
    assert IServiceMaker.providedBy(maker)
    assert maker.tapname == "chat"
    assert maker.description
    assert len(maker.description.splitlines()) == 1


def test_it_points_to_our_options_and_service(maker: ServiceMaker) -> None:
    """What twistd runs are the options and the service of `chatproto.tap`."""
    assert maker.module == "chatproto.tap"
    assert importlib.import_module(maker.module) is chatproto.tap
    assert maker.options is chatproto.tap.Options
    assert maker.makeService is chatproto.tap.makeService


def test_it_is_light_to_import(in_a_fresh_python: Callable[[str], str]) -> None:
    """`twistd --help`, which imports every plugin, imports nothing of the server, nor a reactor."""
    code = (
        f"import runpy, sys; runpy.run_path({str(PLUGIN)!r}); "
        "print([name for name in sys.modules if name.startswith('chatproto')], "
        "'twisted.internet.reactor' in sys.modules)"
    )
    assert in_a_fresh_python(code) == "[] False\n"


def test_it_shadows_nothing_of_twisted() -> None:
    """Our `twisted` folder is no package: as one it would hide the real Twisted."""
    folder = PLUGIN.parents[1]
    assert [path.name for path in sorted(folder.rglob("*.py"))] == [PLUGIN.name]
