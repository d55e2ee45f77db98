"""Whether somebody else uses the GPU: then the times that a builder measures, and so its choices, are suspect.

Owns: the question to `nvidia-smi`. Runs in the caller's thread, for a moment. Never: takes part in the load itself.
"""

from __future__ import annotations

import shutil
import subprocess

import torch

_BUSY_PERCENT = 10
_TIMEOUT_S = 5.0


def is_busy(device: torch.device) -> bool:
    """Of the last fraction of a second; False where nobody can tell."""
    program = shutil.which("nvidia-smi")
    if device.type != "cuda" or program is None:
        return False
    # by UUID, as CUDA_VISIBLE_DEVICES gives other numbers than nvidia-smi
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={uuid}"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.isdigit() and int(answer) > _BUSY_PERCENT
