"""The emulator under the name of NVIDIA's module, for child processes; see `tensorrt_emulator`."""

import sys

from tensorrt_emulator.install import make_module
from tensorrt_emulator.world import of_environment

sys.modules[__name__] = make_module(of_environment("tensorrt-rtx"))
