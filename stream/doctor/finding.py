"""`Finding`: one thing that was looked at, how it is, and what to type when it is not as it should be.

Owns: the types, and how a person reads them. Runs in any thread. Never: looks at anything.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """How it is."""

    OK = "ok"
    NOTE = "note"  # works, but somebody should know
    UNKNOWN = "unknown"  # cannot be told from here
    BROKEN = "broken"  # the daemon will not do what it was told


@dataclass(frozen=True, slots=True)
class Finding:
    """`fixes` are commands to paste, or one-line pieces of configuration; most likely first."""

    subject: str
    verdict: Verdict
    text: str
    fixes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """As printed."""
        found = [f"{self.verdict:<8}{self.subject:<16}{' '.join(self.text.split())}"]
        return found + [f"{'':<24}$ {fix}" for fix in self.fixes]


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, Verdict.OK, text)


def note(subject: str, text: str, *fixes: str) -> Finding:
    return Finding(subject, Verdict.NOTE, text, fixes)


def unknown(subject: str, text: str, *fixes: str) -> Finding:
    return Finding(subject, Verdict.UNKNOWN, text, fixes)


def broken(subject: str, text: str, *fixes: str) -> Finding:
    return Finding(subject, Verdict.BROKEN, text, fixes)
