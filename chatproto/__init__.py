"""A chat server for everyone on the network, as a Twisted application.

``twistd -n chat --port 12345`` runs it. To put the chat into another Twisted application, listen
with a factory of ours: ``endpoint.listen(ChatFactory(Settings(nicknames="required")))``.
"""

from chatproto.factory import ChatFactory
from chatproto.settings import Settings

__version__ = "0.1.0"

__all__ = ["ChatFactory", "Settings", "__version__"]
