"""What FFmpeg may reach for a stream, as whom, and whom it believes.

Owns: protocol whitelists, certificates to trust, and the login from `$CREDENTIALS_DIRECTORY`. Reads those small files
in the camera's thread, and keeps nothing.
Never: shows a password; it stands in the URL that FFmpeg gets, and nowhere else.

| scheme | FFmpeg may use | certificate |
|---|---|---|
| rtsp | tcp; with UDP also udp and rtp | - |
| rtsps | tls over tcp | checked against `<credential>.pem` where that file exists, else accepted as it is |
| http, and HLS in it | http over tcp, and AES-128 of HLS | - |
| https, and HLS in it | https over tls, and AES-128 of HLS | checked against `<credential>.pem`, else the system's |

So a playlist from the network can neither read a file nor lead to another scheme. Cameras mostly make their own
certificate, which proves nothing unless it is known: hence the `.pem` (of the camera itself, or of who signed it).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from stream.capture.address import url_for_ffmpeg
from stream.capture.picture import SourceError, SourceRefused
from stream.config import CameraConfig

PROTOCOLS: Mapping[str, str] = {
    "rtsp": "tcp",
    "rtsps": "tls,tcp",
    "http": "http,tcp,crypto",
    "https": "https,tls,tcp,crypto",
}
TRUSTED = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
MAX_CREDENTIAL_BYTES = 1024


def protocol_options(config: CameraConfig, scheme: str) -> dict[str, str]:
    """FFmpeg's options that bound what it may open."""
    protocols = PROTOCOLS[scheme]
    if scheme == "rtsp" and config.rtsp_transport == "udp":
        protocols += ",udp,rtp"
    options = {"protocol_whitelist": protocols}
    pinned = _credential_path(f"{config.credential}.pem") if config.credential else None
    if scheme in ("rtsps", "https") and pinned is not None and pinned.is_file():
        options |= {"tls_verify": "1", "ca_file": str(pinned)}
    elif scheme == "https":
        trusted = [path for path in (os.environ.get("SSL_CERT_FILE", ""), *TRUSTED) if path and Path(path).is_file()]
        options |= {"tls_verify": "1"} | ({"ca_file": trusted[0]} if trusted else {})
    return options


def url_with_login(config: CameraConfig) -> str:
    """The URL for FFmpeg; raises `SourceRefused` without the credential, which may be put right meanwhile."""
    url = url_for_ffmpeg(config.source)
    if not config.credential:
        return url
    user, colon, password = _read_credential(config).partition(":")
    if not colon or not user:
        raise SourceRefused(f"credential '{config.credential}': expected one line user:password")
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def check_credential(config: CameraConfig, shown: str) -> None:
    """Raise `SourceError` for a login that can never work."""
    if not config.credential:
        return
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", config.credential):
        raise SourceError(f"source '{shown}': credential, expected the name of a file in $CREDENTIALS_DIRECTORY")
    if "@" in url_for_ffmpeg(config.source).partition("://")[2].partition("/")[0]:
        raise SourceError(f"source '{shown}': expected a user in the address or a credential, not both")


def resolve(url: str, shown: str) -> None:
    """Raise `SourceError` for a host whose name nobody knows: FFmpeg's own look-up cannot be interrupted."""
    try:
        host = urlsplit(url).hostname
        socket.getaddrinfo(host, None)
    except (OSError, ValueError):
        raise SourceError(f"source '{shown}': its host name is not known (no answer from DNS, or none such)") from None


def _read_credential(config: CameraConfig) -> str:
    path = _credential_path(config.credential)
    if path is None:
        raise SourceRefused(f"credential '{config.credential}': $CREDENTIALS_DIRECTORY is not set")
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CREDENTIAL_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "unreadable").lower() if isinstance(error, OSError) else "not UTF-8"
        raise SourceRefused(f"credential '{config.credential}': {reason}, in $CREDENTIALS_DIRECTORY") from None
    return text.rstrip("\r\n")


def _credential_path(name: str) -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return Path(folder, name) if folder else None
