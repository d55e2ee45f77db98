"""The options of `run` and `segment` that are about masks, memory and the model's pictures.

Owns: their types and help. Runs in the main thread. Never: checks a value; `stream.config.treatment_from_flags` does.
"""

from __future__ import annotations

from typing import Annotated

import typer

Policy = Annotated[str | None, typer.Option(help="What enters the memory: sam2, or motion (identities hold better).")]
CameraMotion = Annotated[bool, typer.Option("--camera-motion", help="With motion: allow for a moving camera.")]
FillHoles = Annotated[int | None, typer.Option(help="Fill holes of at most so many pixels of a 256x256 mask.")]
RemoveSpecks = Annotated[int | None, typer.Option(help="Remove pieces of at most so many pixels of a 256x256 mask.")]
Smooth = Annotated[float | None, typer.Option(help="Hold resting edges steady, 0 (off) to 1.")]
Upsample = Annotated[str | None, typer.Option(help="bilinear, or guided (edges are drawn to the picture's).")]
NonOverlap = Annotated[bool, typer.Option("--non-overlap", help="A pixel belongs to one object at most.")]
Denoise = Annotated[float | None, typer.Option(help="Take noise out of the model's pictures, 0 (off) to 1.")]
LowLight = Annotated[float | None, typer.Option(help="Lift the model's dark pictures, 0 (off) to 1.")]
