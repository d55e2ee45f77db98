"""`.masks` files: messages as they came, and when.

Owns: the file format. Thread: whoever opened the file, alone. Never: loses more than the last record to a crash, or
looks into a message.

A file begins with the 8 bytes `S2MASKS` and 1 (the format's version); then records until the end, all numbers
little-endian:

    uint32  number of bytes of the message
    uint32  CRC-32 of all that follows in the record
    int64   monotonic nanoseconds at which the message was received
    int64   the same moment in Unix time
    bytes   the message, exactly as `stream.wire` specifies it

A record that is cut short or fails its checksum ends the file: a reader stops before it and says so, a writer that
continues the file cuts it off.
"""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Self

MAGIC = b"S2MASKS"
VERSION = 1
HEADER = MAGIC + bytes([VERSION])
LENGTHS = struct.Struct("<II")
TIMES = struct.Struct("<qq")
MAX_RECORD_BYTES = 16 << 20


class RecordingError(ValueError):
    """A file is not a recording that this version can use; the text names the file and what was expected."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message and when it was received."""

    received_ns: int
    received_utc_ns: int
    payload: bytes


class RecordingReader:
    """Iterates over the sound records of a file, from the start each time. Written by the thread that opened it.

    `num_bytes_torn` tells, after an iteration, how much at the end was not a sound record.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.num_bytes_torn = 0
        with path.open("rb") as file:
            check_header(path, file)

    def __iter__(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            check_header(self.path, file)
            end = len(HEADER)
            while (record := read_record(file)) is not None:
                end = file.tell()
                yield record
            self.num_bytes_torn = file.seek(0, 2) - end


class RecordingWriter:
    """Writes one record with one unbuffered write. Written by the thread that opened it."""

    def __init__(self, path: pathlib.Path, *, resume: bool = False) -> None:
        """A new file, which must not exist; or, with `resume`, the end of one that may."""
        self.path = path
        self.num_records = 0
        self._is_new = not (resume and path.exists())
        if not self._is_new:
            self._file = path.open("r+b", buffering=0)
            self._end = self._find_end()
        else:
            self._file = path.open("xb", buffering=0)
            self._end = 0
            self._append(HEADER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, record: Record) -> None:
        """Append; after an OSError (disk full) the file still ends with a whole record, and may be put to again."""
        if len(record.payload) > MAX_RECORD_BYTES:
            raise RecordingError(f"message of {len(record.payload)} bytes, expected at most {MAX_RECORD_BYTES}")
        body = TIMES.pack(record.received_ns, record.received_utc_ns) + record.payload
        self._append(LENGTHS.pack(len(record.payload), zlib.crc32(body)) + body)
        self.num_records += 1

    def close(self) -> None:
        """A new file that got no record is removed: there was nothing to record."""
        self._file.close()
        if self._is_new and not self.num_records:
            self.path.unlink(missing_ok=True)

    def _find_end(self) -> int:
        try:
            check_header(self.path, self._file)
        except RecordingError:
            self._file.close()
            raise
        end = self._file.tell()
        while read_record(self._file) is not None:
            end = self._file.tell()
        self._file.truncate(end)
        return self._file.seek(end)

    def _append(self, data: bytes) -> None:
        try:
            num_written = 0
            while num_written < len(data):
                num_written += self._file.write(data[num_written:])
        except OSError:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end += len(data)


def check_header(path: pathlib.Path, file: BinaryIO) -> None:
    header = file.read(len(HEADER))
    if header[: len(MAGIC)] != MAGIC or len(header) < len(HEADER):
        raise RecordingError(f"{path} begins with {header!r}, expected {MAGIC!r} as in every .masks file")
    if header != HEADER:
        raise RecordingError(f"{path} has format version {header[-1]}, expected {VERSION}")


def read_record(file: BinaryIO) -> Record | None:
    """The next record; None where the file ends, or is not sound any more."""
    lengths = file.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    num_bytes, checksum = LENGTHS.unpack(lengths)
    if num_bytes > MAX_RECORD_BYTES:
        return None
    body = file.read(TIMES.size + num_bytes)
    if len(body) < TIMES.size + num_bytes or zlib.crc32(body) != checksum:
        return None
    received_ns, received_utc_ns = TIMES.unpack_from(body)
    return Record(received_ns, received_utc_ns, body[TIMES.size :])
