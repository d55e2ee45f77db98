"""A missing apt package skips on a desk and fails in CI, and is named in both."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def test_a_missing_package_skips_by_name_on_a_desk(
    needs_apt: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-package-here"):
        needs_apt("no-such-package-here")


def test_a_missing_package_fails_by_name_in_ci(needs_apt: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-package-here"):
        needs_apt("no-such-package-here")
