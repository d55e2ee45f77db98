"""The clock: whether the times in messages are also those of other machines.

Owns: nothing. Runs in whichever thread calls it. Never: sets the clock, or waits for a time server.

The kernel knows, where ntpd or systemd-timesyncd steer it, or chrony with `rtcsync`. Without that, chrony itself is
asked. A container or a virtual machine may have its host's time, which cannot be told from inside.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path

from stream.doctor.finding import Finding, note, ok, unknown

TIMEX_BYTES, STATUS_AT = 1024, 40  # struct timex: more than its size, and where `status` lies with 64-bit longs
STA_UNSYNC, TIME_ERROR = 0x40, 5
TIMESYNCD = Path("/run/systemd/timesync/synchronized")
ASK_LIMIT_S = 3.0
FIXES = ("sudo timedatectl set-ntp true && timedatectl", "sudo apt-get install chrony && chronyc tracking")


def clock() -> Finding:
    """As the kernel says, else chrony."""
    error, is_synchronised = kernel()
    if is_synchronised:
        return ok("clock", "synchronised, says the kernel")
    if TIMESYNCD.exists():
        return ok("clock", "synchronised by systemd-timesyncd")
    told = chrony()
    if told:
        return told
    if error:
        return unknown("clock", f"cannot be asked here ({error}); masks carry its time", *FIXES)
    return note("clock", "not synchronised here (a container has its host's): masks carry this machine's time", *FIXES)


def kernel() -> tuple[str, bool]:
    """What prevents asking it, if anything; and whether it calls the clock synchronised."""
    answer = ctypes.create_string_buffer(TIMEX_BYTES)  # all zero: only read
    state = ctypes.CDLL(None, use_errno=True).adjtimex(answer)
    if state < 0:
        return os.strerror(ctypes.get_errno()), False
    if ctypes.sizeof(ctypes.c_long) != 8:
        return "32-bit machine", False
    status = int.from_bytes(answer.raw[STATUS_AT : STATUS_AT + 4], "little")
    return "", state != TIME_ERROR and not status & STA_UNSYNC


def chrony() -> Finding | None:
    """What a running chrony says; None where there is none."""
    try:
        command = ["chronyc", "-n", "tracking"]
        done = subprocess.run(command, capture_output=True, timeout=ASK_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(re.findall(r"^(.+?)\s*: (.+)$", done.stdout.decode(errors="replace"), re.MULTILINE))
    if done.returncode != 0 or "Leap status" not in found:
        return None
    text = f"chrony: leap status {found['Leap status']}, {found.get('System time', 'offset not told')}"
    if found["Leap status"] == "Not synchronised":
        return note("clock", text, "chronyc sources -v", "sudo systemctl restart chrony")
    return ok("clock", text)
