"""Which cameras there are, and which of them the window shows.

Owns: the chosen camera, and whether all are shown. Runs in the view's main thread. Never: subscribes to anything.
"""

from __future__ import annotations

from collections.abc import Sequence

STAYS = "a video is being saved: its camera stays"


class Choice:
    """Every method returns what to tell the person, "" for nothing. Written by the view's thread."""

    def __init__(self, camera: str | None = None, *, is_fixed: bool = False) -> None:
        self.camera = camera  # None: no camera is known yet
        self.names: tuple[str, ...] = ()
        self.is_grid = False
        self._is_fixed = is_fixed

    def set_names(self, names: Sequence[str]) -> str:
        """The daemon's cameras, as it tells them now."""
        before, self.names = self.names, tuple(names)
        if self.camera is None and names:
            self.camera = names[0]
        elif self.camera in before and self.camera not in names:
            return f"the daemon has no camera {self.camera} any more{'; Tab: the next one' if names else ''}"
        gone, new = sorted(set(before) - set(names)), sorted(set(names) - set(before))
        if before and gone:
            return f"the daemon has no camera {gone[0]} any more"
        return f"the daemon has a new camera {new[0]}" if before and new else ""

    @property
    def kept(self) -> frozenset[str]:
        """Cameras of which something is to be remembered."""
        return frozenset(self.names) | ({self.camera} if self.camera is not None else set())

    def toggle_grid(self) -> str:
        if self._is_fixed:
            return STAYS
        self.is_grid = not self.is_grid
        return "click on a camera to see it alone" if self.is_grid else f"camera {self.camera}"

    def choose(self, camera: str) -> str:
        if self._is_fixed and camera != self.camera:
            return STAYS
        self.camera, self.is_grid = camera, False
        return f"camera {camera}"

    def choose_number(self, number: int) -> str:
        """The first is 1."""
        if number > len(self.names):
            return f"there is no camera {number}: the daemon has {len(self.names)}"
        return self.choose(self.names[number - 1])

    def choose_next(self) -> str:
        if not self.names:
            return "the daemon has no cameras"
        index = self.names.index(self.camera) + 1 if self.camera in self.names else 0
        return self.choose(self.names[index % len(self.names)])
