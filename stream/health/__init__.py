"""The daemon's condition over HTTP: the `server` and its connections, and what it `answers`."""

from stream.health.server import HealthServer

__all__ = ["HealthServer"]
