"""Keys: who may listen to this daemon, and who may command it.

`folder` makes, lists and revokes them, `ring` reads them for a daemon (`KeyRing`) or a client (`ClientKeys`), `guard`
answers ZeroMQ's question at every handshake, `files` reads and writes files that nobody else may read.
"""

from stream.keys.files import KeysError
from stream.keys.folder import KeyFolder, default_folder
from stream.keys.guard import PLAIN, Guard
from stream.keys.ring import Client, ClientKeys, Domain, KeyRing, Role

__all__ = [
    "PLAIN",
    "Client",
    "ClientKeys",
    "Domain",
    "Guard",
    "KeyFolder",
    "KeyRing",
    "KeysError",
    "Role",
    "default_folder",
]
