"""How commands and replies become bytes and come back; what they mean stands in `stream.command`.

Owns: `encode_*` and `decode_*`, and `CommandError`, raised for all bad bytes. Runs in any thread. Never: touches a
socket, or shows more of what came than one short line.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from stream.command import PRINTABLE, VERSION, AnyRequest, Reply, Request

MAX_ERROR = 300  # characters


class CommandError(ValueError):
    """A request or reply is not what the table above says. `id` of the request where it could be read, else None."""

    def __init__(self, text: str, request_id: str | None) -> None:
        super().__init__(one_line(text))
        self.id = request_id


class _Sender(msgspec.Struct):
    """What a request that cannot be read may still tell."""

    id: Annotated[str, Meta(max_length=64, pattern=PRINTABLE)] = ""


class _Version(msgspec.Struct):
    version: int = VERSION


_ENCODER = msgspec.msgpack.Encoder()
_REQUEST = msgspec.msgpack.Decoder(AnyRequest)
_REPLY = msgspec.msgpack.Decoder(Reply)
_SENDER = msgspec.msgpack.Decoder(_Sender)
_VERSION = msgspec.msgpack.Decoder(_Version)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode_request(request: Request) -> bytes:
    return _ENCODER.encode(request)


def encode_reply(reply: Reply) -> bytes:
    return _ENCODER.encode(reply)


def decode_request(payload: bytes) -> AnyRequest:
    """The request in these bytes; `CommandError` says what is wrong with them."""
    try:
        request: AnyRequest = _REQUEST.decode(payload)
        return request
    except _UNREADABLE as exc:
        text = str(exc)
    try:
        version = _VERSION.decode(payload).version
    except _UNREADABLE:
        version = VERSION
    raise CommandError(text if version == VERSION else f"version {version}, expected {VERSION}", sender_id(payload))


def sender_id(payload: bytes) -> str | None:
    """The id in a request that need not be valid otherwise; None where it cannot be read."""
    try:
        return _SENDER.decode(payload).id
    except _UNREADABLE:
        return None


def decode_reply(payload: bytes) -> Reply:
    """The reply in these bytes; `CommandError` says what is wrong with them."""
    try:
        return _REPLY.decode(payload)
    except _UNREADABLE as exc:
        raise CommandError(f"reply: {exc}", None) from exc


def one_line(text: str) -> str:
    """As much of a text as an error may hold, without control characters."""
    shown = "".join(character if character.isprintable() else " " for character in text[: MAX_ERROR + 1])
    return shown if len(shown) <= MAX_ERROR else shown[: MAX_ERROR - 3] + "..."
