"""How every emulated class behaves: it has its own world. `install` adds what is checked."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorrt_emulator.world import World


class Emulated:
    """`module` and `world` are set by `install.make_module`, in a subclass that checks calls."""

    module: Any = ModuleType("none")
    world: World


class IHostMemory(Emulated, bytes):
    """Bytes behind the buffer protocol and nothing else: `bytes(memory)` and `memoryview(memory)` work."""

    def __new__(cls, data: bytes) -> IHostMemory:
        return bytes.__new__(cls, data)

    def __init__(self, data: bytes) -> None:
        self._is_data = True

    nbytes = property(lambda self: bytes.__len__(self))
    dtype = property(lambda self: self.module.DataType.INT8)

    def __len__(self) -> int:
        raise TypeError("object of type 'IHostMemory' has no len()")

    def __getitem__(self, key: object) -> Any:
        raise TypeError("'IHostMemory' object is not subscriptable")

    def __iter__(self) -> Any:
        raise TypeError("'IHostMemory' object is not iterable")


class Dims(tuple[int, ...]):
    """A shape."""
