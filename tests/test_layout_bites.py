"""The layout test bites: each snippet breaks one rule, and the check of that rule must fail on it."""

from __future__ import annotations

import ast

import pytest
import test_layout as layout

BROKEN = [
    ("stream.ring", "def f(a, b, c, d):\n    return a", layout.test_a_function_is_short_flat_and_takes_few_parameters),
    ("stream.ring", "def f(*, a, b, c, d, e, g): ...", layout.test_a_function_is_short_flat_and_takes_few_parameters),
    ("stream.ring", "def f():\n" + "    x = 1\n" * 40, layout.test_a_function_is_short_flat_and_takes_few_parameters),
    (
        "stream.ring",
        "def f():\n if 1:\n  for x in y:\n   with z:\n    while 1:\n     g()",
        layout.test_a_function_is_short_flat_and_takes_few_parameters,
    ),
    ("stream.ring", "class FrameManager: ...", layout.test_no_name_hides_what_it_is),
    ("stream.camera_utils", "", layout.test_no_name_hides_what_it_is),
    ("stream.ring", "import stream.wire", layout.test_imports_go_down),
    ("stream.ring", "from stream import daemon", layout.test_imports_go_down),
    ("stream.unknown", "", layout.test_imports_go_down),
    ("engines.build", "from stream.frame import Frame", layout.test_imports_go_down),
    ("stream", "import stream.frame", layout.test_imports_go_down),
    ("stream.ring", "from stream.frame import *", layout.test_no_star_and_no_lazy_import),
    ("stream.ring", "def f():\n    import json", layout.test_no_star_and_no_lazy_import),
    ("stream.tracker", "def f():\n    import json", layout.test_no_star_and_no_lazy_import),
    ("stream.client", "import av.container", layout.test_packages_stay_in_their_rooms),
    ("stream.capture.file", "import torchvision", layout.test_packages_stay_in_their_rooms),
    ("stream.client", "import cv2", layout.test_a_light_module_needs_no_heavy_package),
    ("stream.wire", "from engines import spec", layout.test_a_light_module_needs_no_heavy_package),
    ("stream.ring", "def f():\n try: g()\n except Exception: h()", layout.test_errors_are_specific),
    ("stream.ring", "def run():\n try: g()\n except: h()", layout.test_errors_are_specific),
    ("stream.ring", "try: g()\nexcept BaseException: h()", layout.test_errors_are_specific),
    ("stream.ring", "def f():\n    pass", layout.test_nothing_is_passed_over_polled_or_global),
    ("stream.ring", "def f():\n    time.sleep(1)", layout.test_nothing_is_passed_over_polled_or_global),
    ("stream.ring", "@dataclass(slots=True)\nclass A: ...", layout.test_dataclasses_are_frozen_and_slotted),
    ("stream.frame", "x = 1", layout.test_the_docstring_says_owner_thread_and_limits),
    ("stream.frame", "'''Owns things. Never sleeps.'''", layout.test_the_docstring_says_owner_thread_and_limits),
]
FINE = [
    ("stream.ring", "class A:\n def f(self, a, b, c, *, d, e): ...", BROKEN[0][2]),
    ("stream.ring", "def f():\n if 1: g()\n elif 2: g()\n elif 3: g()\n elif 4: g()", BROKEN[0][2]),
    ("stream.worker", "def run():\n try: g()\n except Exception: h()", layout.test_errors_are_specific),
    ("stream.cli", "def f():\n    import json", layout.test_no_star_and_no_lazy_import),
    ("stream.tracker", "def f():\n    import engines.eager", layout.test_no_star_and_no_lazy_import),
    ("stream.capture.file", "from stream.capture import source\nimport av", layout.test_imports_go_down),
]


@pytest.mark.parametrize(("name", "source", "check"), BROKEN)
def test_a_broken_rule_is_refused(name: str, source: str, check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layout.TREES, name, ast.parse(source))
    with pytest.raises(AssertionError):
        check(name)  # type: ignore[operator]


@pytest.mark.parametrize(("name", "source", "check"), FINE)
def test_a_kept_rule_passes(name: str, source: str, check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layout.TREES, name, ast.parse(source))
    check(name)  # type: ignore[operator]


def test_a_circle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layout.TREES, "stream.capture.a", ast.parse("import stream.capture.b"))
    monkeypatch.setitem(layout.TREES, "stream.capture.b", ast.parse("import stream.capture.a"))
    with pytest.raises(AssertionError, match=r"stream\.capture\.a -> stream\.capture\.b"):
        layout.test_no_circles()
