"""The tests of the second virtual environment (see the Makefile), where `torch-tensorrt-rtx` has the name
`torch_tensorrt`. In the first one there is nothing here to collect.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distributions

import pytest
from no_gpu import Builds, watched

from engines.tensorrt import Library, load_library

NAMES = {distribution.metadata["Name"] for distribution in distributions()}
if "torch-tensorrt-rtx" not in NAMES:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def library() -> Library:
    return load_library("tensorrt-rtx")


@pytest.fixture(scope="session")
def builds(library: Library) -> Iterator[Builds]:
    with watched(library) as result:
        yield result
