"""One file over plain HTTPS: streamed to disk, resumed where it was cut, checked, and there whole or not at all."""

import email.utils
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from r1mm.data.access import LOCAL_VARIABLE, Patience
from r1mm.errors import BadInput, StageFailed
from r1mm.progress import progress_bar
from r1mm.rundir import FileStamp, explained, locked, make_folder, publish, stamp, write_json

_ROOM = 64 << 20  # left free beside what is still to come: records, logs
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUT = httpx2.Timeout(30.0)


class Again(Exception):
    """A request that may succeed when it is made again, after `told` seconds where the server says so."""

    def __init__(self, reason: str, told: float | None = None) -> None:
        super().__init__(reason)
        self.told = told


def retry_after(headers: Any) -> float | None:
    """Seconds that a Retry-After header asks for; None without.  A date is read against the server's own clock.

    Where the server does not say what its clock shows, this machine's.
    """
    text, date = (headers.get("retry-after") or "").strip(), headers.get("date")
    if text.isdigit():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (then - now).total_seconds())
    except (TypeError, ValueError):
        return None


def refuse_status(status: int, headers: Any, what: str, address: str, *, login: str, place: str) -> None:
    """Raise what an HTTP status of 400 or more means for the asset `what`.

    Again where waiting helps; BadInput with `login` (what to do about 401 and 403) or `place` (about 404).
    """
    if status in _AGAIN:
        raise Again(f"{address} answers {status}", retry_after(headers))
    if status in (401, 403):
        raise BadInput(f"{what}: {address} answers {status} (no access); {login}")
    if status in (404, 410):
        raise BadInput(f"{what}: {address} answers {status} (not there); {place}")
    raise BadInput(
        f"{what}: {address} answers {status}; look at it with a browser, or fetch the asset by hand and serve it from "
        f"a folder with {LOCAL_VARIABLE}=DIR"
    )


def given_up(what: str, reason: str, times: int) -> StageFailed:
    """The error after the last attempt."""
    if " answers 429" in reason:
        return StageFailed(
            f"{what}: {reason} (too many requests) after {times} attempts with growing waits; start the same command "
            "again later, it goes on from what is there (a hub token raises the limit: HF_TOKEN_PATH)"
        )
    return StageFailed(
        f"{what}: {reason} after {times} attempts; check the network (or a proxy: HTTPS_PROXY), then start the same "
        "command again, it goes on from what is there"
    )


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise StageFailed when `needed` more bytes do not fit beside `folder`."""
    free = shutil.disk_usage(folder).free
    if needed + _ROOM > free:
        raise StageFailed(
            f"{what}: the disk of {folder} is full: {needed / 1e9:.2f} GB are still to come, {free / 1e9:.2f} GB are "
            "free; free some space and start the same command again, it goes on from what is there"
        )


class _Part:
    """The part of a file that has come so far, and what identifies the whole on the server."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._notes = target.with_name(f".{target.name}.part.json")

    @property
    def have(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self, url: str) -> str | None:
        """What If-Range may carry to go on with the part: the strong ETag, or the date, that it came with."""
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
            return str(notes["validator"]) if notes["url"] == url and notes["validator"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, url: str, headers: Any) -> None:
        etag = headers.get("etag")
        strong = etag if etag and not etag.startswith("W/") else None
        write_json(self._notes, {"url": url, "validator": strong or headers.get("last-modified")})

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)


def _start_of(response: httpx2.Response, have: int) -> int:
    """Where a successful answer begins in the file: `have` when the server goes on from there, else 0."""
    if response.status_code != 206:
        return 0
    unit, _, rest = response.headers.get("content-range", "").partition(" ")
    start = rest.partition("-")[0]
    if unit != "bytes" or not start.isdigit() or int(start) != have:
        raise Again(f"{response.url} sends the range {response.headers.get('content-range')!r}, asked from byte {have}")
    return have


def _chunks(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()  # as it comes: what waits for a full chunk is lost when the connection is cut
    except httpx2.TransportError as error:
        raise Again(f"the connection to {response.url.host} was cut ({error or type(error).__name__})") from error


def _receive(client: httpx2.Client, url: str, part: _Part, title: str) -> bool:
    """Make one request and append what it gives to the part; whether it went on from an earlier one."""
    have, validator = part.have, part.validator(url)
    headers = {"Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        request = client.build_request("GET", url, headers=headers)
        response = client.send(request, stream=True)
    except httpx2.TransportError as error:
        raise Again(f"{url} cannot be reached ({error or type(error).__name__})") from error
    except (httpx2.InvalidURL, httpx2.TooManyRedirects) as error:
        raise BadInput(f"{title}: {url} leads nowhere ({error}); correct the address") from error
    try:
        if url.startswith("https:") and response.url.scheme != "https":
            raise BadInput(f"{title}: {url} leads to {response.url}, which is not encrypted; name another address")
        if response.status_code == 416:
            if response.headers.get("content-range") == f"bytes */{have}":
                return True  # a kill came between the last byte and the file's name
            part.forget()
            raise Again(f"{url} has changed")
        if response.status_code >= 400:
            refuse_status(
                response.status_code,
                response.headers,
                title,
                url,
                login=f"fetch it with a browser and serve it from a folder with {LOCAL_VARIABLE}=DIR",
                place="check commit and path in the recipe, or fetch it from elsewhere and serve it from a folder with "
                f"{LOCAL_VARIABLE}=DIR",
            )
        start = _start_of(response, have)
        length = response.headers.get("content-length", "")
        total = start + int(length) if length.isdigit() else None
        if total is not None:
            check_space(part.path.parent, total - start, title)
        if not start:
            part.forget()
            part.note(url, response.headers)
        with (
            explained(part.path),
            part.path.open("ab") as file,
            progress_bar(total=total, initial=start, desc=title, unit="B", unit_scale=True) as bar,
        ):
            for chunk in _chunks(response):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and part.have != total:
            raise Again(f"{url} ended after {part.have} of {total} bytes")
        return start > 0
    finally:
        response.close()


def _whole(client: httpx2.Client, url: str, part: _Part, title: str, patience: Patience) -> bool:
    """Ask until the part is the whole; whether any of it came over more than one connection."""
    failures, resumed = 0, False
    while True:
        before = part.have
        try:
            return _receive(client, url, part, title) or resumed
        except Again as again:
            resumed = True
            failures = 1 if part.have > before else failures + 1  # whoever still gives something is asked on
            if failures >= patience.attempts:
                raise given_up(title, str(again), failures) from again
            patience.wait(failures, again.told)


def download(url: str, target: Path, *, patience: Patience, sha256: str | None = None, title: str) -> FileStamp:
    """Bring `url` to `target`, unless it is there, and return its stamp.

    A part that an earlier call left is gone on with when the server says the file is still the same.  Raises BadInput
    for an answer that waiting does not change and for another sha256 than the pinned one, StageFailed when the disk is
    full or the network gives out; the part that came is kept then.  BadInput when another process is fetching it.
    """
    make_folder(target.parent)
    with locked(target):  # the folder of downloads is shared by all runs
        return _download(url, target, patience, sha256, title)


def _download(url: str, target: Path, patience: Patience, sha256: str | None, title: str) -> FileStamp:
    if target.is_file():
        found = stamp(target)
        if sha256 in (None, found.sha256):
            return found
        target.unlink()
    part = _Part(target)
    with httpx2.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
        resumed = _whole(client, url, part, title, patience)
        found = stamp(part.path)
        if sha256 not in (None, found.sha256) and resumed:  # parts of different files, perhaps: once more in one piece
            part.forget()
            _whole(client, url, part, title, patience)
            found = stamp(part.path)
    if sha256 not in (None, found.sha256):
        part.forget()
        raise BadInput(
            f"{title}: {url} has sha256 {found.sha256} ({found.bytes} bytes), the recipe pins {sha256}; it is not what "
            "the recipe was written for: find out why before you change the pin"
        )
    publish(part.path, target)
    part.forget()
    return found
