"""`sam2-stream demo`: a clip with known truth through the whole daemon, watched from another process.

`play` is the order of it all; `plan` says what is played, `process` and `__main__` are the daemon's process, `receiver`
takes what it publishes, `score` and `baseline` compare with the truth, `review`, `sheet` and `window` draw, `report`
tells. The process that receives never loads torch.
"""

from stream.demo.play import run_demo

__all__ = ["run_demo"]
