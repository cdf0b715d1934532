"""Tell twistd about the chat server; imports nothing of it until it is started."""

from twisted.application.service import ServiceMaker

chat = ServiceMaker(
    "chat",
    "chatproto.tap",
    "A chat server: every line goes to everyone else in the room.",
    "chat",
)
