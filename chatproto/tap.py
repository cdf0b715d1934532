"""``twistd chat``: from flags to settings to the service (the name is Twisted's for such modules).

Everything that can be wrong is found here, before the daemon is on its own: one line on standard
error, exit status 1, no pid file and no log file left behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

import chatproto
from chatproto.errors import ChatError, StartError
from chatproto.logs import Logging
from chatproto.service import make_service
from chatproto.settings import SETTINGS, Settings, load


def _describe(name: str) -> str:
    """Return the help text of a setting, with its default."""
    setting = SETTINGS[name]
    text: str = setting.metadata["help"]
    default = setting.default
    return text.replace("%s", f"{default:g}" if isinstance(default, float) else str(default))


class Options(usage.Options):
    """The flags; `settings` holds what they and the other sources come to."""

    synopsis = "[options]"
    longdesc = (
        "A chat server: every line that a client sends goes to everyone else in its room. "
        "Join with nc, telnet or openssl s_client, and type /help. Every option can also be set "
        "as CHAT_NAME in the environment (CHAT_MAX_LINE=512) or in a TOML file (max-line = 512): "
        "the option goes over the environment, the environment over the file."
    )
    optParameters = [  # noqa: RUF012 - Twisted's interface
        *([name, None, None, _describe(name)] for name in SETTINGS if name != "port"),
        ["config", "c", None, "a TOML file with settings [CHAT_CONFIG]"],
    ]
    settings: Settings
    logging: Logging | None = None

    def opt_port(self, value: str) -> None:
        self.setdefault("port", []).append(value)

    opt_port.__doc__ = _describe("port")
    opt_p = opt_port

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"chatproto {chatproto.__version__}")
        sys.exit(0)

    def parseArgs(self) -> None:
        """There is nothing but options."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the flags; a wrong one ends the process with one line."""
        try:
            super().parseOptions(options)
        except (usage.UsageError, ChatError) as error:
            sys.exit(f"twistd chat: {error}")

    def postOptions(self) -> None:
        """Put the settings together, and open the log file that they ask for."""
        given = {name: self[name] for name in SETTINGS if self.get(name) is not None}
        config = self["config"] or os.environ.get("CHAT_CONFIG")
        self.settings = load(given, os.environ, config)
        self._open_log()

    def _open_log(self) -> None:
        """Open the log that twistd is to use; leave twist's, syslog and the user's own alone."""
        twistd: Any = getattr(self, "parent", None)
        if twistd is None or "logfile" not in twistd:
            return
        if twistd.get("syslog") or twistd.get("logger"):
            return
        path = twistd["logfile"]
        if path == "-" or (path is None and twistd.get("nodaemon")):
            path = None
        elif path is None:
            path = "twistd.log"
        try:
            self.logging = Logging(path, self.settings.log_format)
        except OSError as error:
            raise StartError(f"--logfile {path}: {error.strerror}") from None


def makeService(options: Options) -> IService:
    """Return the service, with its ports open; a port that cannot be ends the process."""
    from twisted.internet import reactor

    try:
        return make_service(reactor, options.settings, options.logging)
    except ChatError as error:
        sys.exit(f"twistd chat: {error}")
