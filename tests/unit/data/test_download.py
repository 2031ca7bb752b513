import hashlib
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from r1mm.data.access import Patience
from r1mm.data.download import download, retry_after
from r1mm.errors import BadInput, StageFailed
from r1mm.rundir import locked
from tests.loopback import Answer, Asked, serving

BODY = bytes(range(256)) * 40
OTHER = bytes(reversed(range(256))) * 40


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def seen(folder: Path) -> list[str]:
    """What lies in a folder, but for locks."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(attempts=4, first=1.0, longest=8.0, sleep=waits.append, chance=lambda: 1.0)


def in_turn(*answers: Answer | Callable[[Asked], Answer]) -> Callable[[Asked], Answer]:
    """Each answer once, the last one from then on."""
    left: Iterator[Answer | Callable[[Asked], Answer]] = iter(answers)
    now: list[Answer | Callable[[Asked], Answer]] = []

    def answer(asked: Asked) -> Answer:
        now[:] = [next(left, *now)]
        return now[0] if isinstance(now[0], Answer) else now[0](asked)

    return answer


def rest_of(body: bytes, etag: str) -> Callable[[Asked], Answer]:
    """What a server that knows ranges gives: the rest while the file is the same, else the whole."""

    def answer(asked: Asked) -> Answer:
        if asked.headers.get("if-range") != etag or "range" not in asked.headers:
            return Answer(body=body, headers={"ETag": etag})
        start = int(asked.headers["range"].removeprefix("bytes=").rstrip("-"))
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return Answer(206, body[start:], {"ETag": etag, "Content-Range": span})

    return answer


def test_a_file_comes_whole_and_is_not_asked_for_twice(tmp_path: Path, patience: Patience) -> None:
    target = tmp_path / "deep" / "file.bin"
    with serving(lambda _: Answer(body=BODY)) as server:
        for _ in range(2):
            found = download(f"{server.address}/x", target, patience=patience, sha256=sha(BODY), title="x")
            assert (found.sha256, found.bytes) == (sha(BODY), len(BODY))
        assert len(server.asked) == 1
    assert seen(target.parent) == ["file.bin"]


def test_a_cut_connection_is_taken_up_where_it_was_cut(tmp_path: Path, patience: Patience, waits: list[float]) -> None:
    cut = Answer(body=BODY, headers={"ETag": '"one"'}, cut=4000)
    with serving(in_turn(cut, rest_of(BODY, '"one"'))) as server:
        assert download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x").sha256 == sha(BODY)
        assert server.asked[1].headers["range"] == "bytes=4000-"
    assert waits == [1.0]


def test_a_later_call_takes_up_what_an_earlier_one_left(tmp_path: Path, patience: Patience) -> None:
    ends = Answer(body=BODY, headers={"ETag": '"one"'}, cut=4000)
    with (
        serving(in_turn(ends, Answer(503))) as server,
        pytest.raises(StageFailed, match="answers 503 after 4 attempts"),
    ):
        download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x")
    assert not (tmp_path / "x").exists()
    assert (tmp_path / ".x.part").stat().st_size == 4000
    # The part belongs to its address; this server listens at another one.
    with serving(rest_of(BODY, '"one"')) as server:
        (tmp_path / ".x.part.json").write_text(f'{{"url": "{server.address}/x", "validator": "\\"one\\""}}')
        assert download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x").sha256 == sha(BODY)
        assert server.asked[0].headers["range"] == "bytes=4000-"


@pytest.mark.parametrize(("total", "requests"), [(len(BODY), 1), (len(BODY) - 1, 2)])
def test_a_part_that_is_the_whole_is_not_fetched_again(
    tmp_path: Path, patience: Patience, total: int, requests: int
) -> None:
    (tmp_path / ".x.part").write_bytes(BODY)

    def answer(asked: Asked) -> Answer:
        if "range" in asked.headers:
            return Answer(416, headers={"Content-Range": f"bytes */{total}"})
        return Answer(body=BODY)

    with serving(answer) as server:
        (tmp_path / ".x.part.json").write_text(f'{{"url": "{server.address}/x", "validator": "\\"one\\""}}')
        assert download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x").sha256 == sha(BODY)
        assert len(server.asked) == requests


def test_a_file_that_changed_between_its_parts_comes_anew(tmp_path: Path, patience: Patience) -> None:
    cut = Answer(body=BODY, headers={"ETag": '"one"'}, cut=4000)
    with serving(in_turn(cut, rest_of(OTHER, '"two"'))) as server:
        assert download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x").sha256 == sha(OTHER)


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_without_a_strong_name_a_file_comes_anew(tmp_path: Path, patience: Patience, headers: dict[str, str]) -> None:
    with serving(in_turn(Answer(body=BODY, headers=headers, cut=4000), Answer(body=OTHER, headers=headers))) as server:
        assert download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x").sha256 == sha(OTHER)
        assert "range" not in server.asked[1].headers


def test_parts_that_do_not_fit_together_are_thrown_away_once(tmp_path: Path, patience: Patience) -> None:
    # A server that claims the file is the same, and lies.
    cut = Answer(body=OTHER, headers={"ETag": '"one"'}, cut=4000)
    with serving(in_turn(cut, rest_of(BODY, '"one"'))) as server:
        found = download(f"{server.address}/x", tmp_path / "x", patience=patience, sha256=sha(BODY), title="x")
        assert found.sha256 == sha(BODY)
        assert "range" not in server.asked[-1].headers


def test_a_range_that_was_not_asked_for_is_not_appended(tmp_path: Path, patience: Patience) -> None:
    cut = Answer(body=BODY, headers={"ETag": '"one"'}, cut=4000)
    wrong = Answer(206, BODY[100:], {"ETag": '"one"', "Content-Range": f"bytes 100-{len(BODY) - 1}/{len(BODY)}"})
    with serving(in_turn(cut, wrong, rest_of(BODY, '"one"'))) as server:
        assert download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x").sha256 == sha(BODY)


def test_the_server_says_how_long_to_wait(tmp_path: Path, patience: Patience, waits: list[float]) -> None:
    seconds = Answer(429, headers={"Retry-After": "3"})
    date = Answer(
        503, headers={"Date": "Sun, 22 Nov 2026 10:00:00 GMT", "Retry-After": "Sun, 22 Nov 2026 10:00:07 GMT"}
    )
    with serving(in_turn(seconds, date, Answer(500), Answer(body=BODY))) as server:
        download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x")
    assert waits == [3.0, 7.0, 4.0]


def test_a_date_is_read_against_our_clock_where_the_server_does_not_tell_its_own() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    told = retry_after({"retry-after": soon})
    assert told is not None
    assert 3000 < told <= 3600
    assert retry_after({"retry-after": "Sun, 22 Nov 2020 10:00:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_too_many_requests_end_with_one_clear_message(tmp_path: Path, patience: Patience, waits: list[float]) -> None:
    with (
        serving(lambda _: Answer(429)) as server,
        pytest.raises(StageFailed, match=r"images: http.*answers 429 \(too many requests\) after 4 attempts"),
    ):
        download(f"{server.address}/x", tmp_path / "x", patience=patience, title="images")
    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, r"answers 401 \(no access\); fetch it with a browser .* R1MM_ASSETS=DIR"),
        (403, r"answers 403 \(no access\)"),
        (404, r"answers 404 \(not there\); check commit and path"),
        (451, r"answers 451; look at it with a browser"),
    ],
)
def test_what_waiting_does_not_change_is_said_at_once(
    tmp_path: Path, patience: Patience, waits: list[float], status: int, said: str
) -> None:
    with serving(lambda _: Answer(status)) as server, pytest.raises(BadInput, match=said):
        download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x")
    assert len(server.asked) == 1
    assert waits == []


def test_a_file_that_ends_too_early_is_no_file(tmp_path: Path, patience: Patience) -> None:
    short = Answer(body=BODY, length=len(BODY) + 1)
    with serving(lambda _: short) as server, pytest.raises(StageFailed, match="was cut .* after 4 attempts"):
        download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x")
    assert not (tmp_path / "x").exists()


def test_another_content_than_the_pinned_one_is_refused(tmp_path: Path, patience: Patience) -> None:
    with (
        serving(lambda _: Answer(body=OTHER)) as server,
        pytest.raises(BadInput, match=f"has sha256 {sha(OTHER)} .* the recipe pins {sha(BODY)}"),
    ):
        download(f"{server.address}/x", tmp_path / "x", patience=patience, sha256=sha(BODY), title="x")
    assert seen(tmp_path) == []


def test_a_kept_file_that_was_damaged_is_fetched_again(tmp_path: Path, patience: Patience) -> None:
    (tmp_path / "x").write_bytes(BODY[:-1])
    with serving(lambda _: Answer(body=BODY)) as server:
        download(f"{server.address}/x", tmp_path / "x", patience=patience, sha256=sha(BODY), title="x")
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_file_that_cannot_fit_is_refused_before_it_comes(tmp_path: Path, patience: Patience) -> None:
    huge = Answer(body=b"", length=10**18)
    with serving(lambda _: huge) as server, pytest.raises(StageFailed, match="is full: 1000000000.00 GB are still to"):
        download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x")
    assert len(server.asked) == 1


def test_nobody_there(tmp_path: Path, patience: Patience) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(StageFailed, match=r"cannot be reached .* after 4 attempts; check the network"):
        download(address, tmp_path / "x", patience=patience, title="x")


def test_two_at_once_do_not_write_one_file(tmp_path: Path, patience: Patience) -> None:
    with locked(tmp_path / "x"), serving(lambda _: Answer(body=BODY)) as server:
        with pytest.raises(BadInput, match="is in use by process"):
            download(f"{server.address}/x", tmp_path / "x", patience=patience, title="x")
        assert server.asked == []
