import os
from collections.abc import Callable
from pathlib import Path

import pytest

from r1mm.endpoint.budget import Usage
from r1mm.endpoint.records import Records, content_key, dead_letters
from r1mm.errors import BadInput, StageFailed
from tests.asking import lines
from tests.unit.test_rundir import disk

USED = {"prompt_tokens": 3, "completion_tokens": 4}


def key(number: int) -> str:
    return content_key("m", [number], {})


def row(number: int, text: str = "four \u2028 \U0001f600") -> dict[str, object]:
    return {"response": text, "key": key(number), "usage": USED}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "traces.jsonl"


def fill(path: Path, results: int, dead: int = 0, text: str = "four \u2028 \U0001f600") -> None:
    with Records(path) as records:
        for number in range(results):
            records.add_result(key(number), row(number, text))
        for number in range(100, 100 + dead):
            records.add_dead(key(number), row(number))


def test_what_was_recorded_is_known_again(path: Path) -> None:
    fill(path, 3, 2)
    with Records(path) as records:
        assert (records.answered, records.dead, records.spent) == (3, 2, Usage(15, 20))
        found = [records.take(key(number)) for number in (0, 0, 7, 101, 101, 7)]
        assert found == ["answered", "twice", "open", "dead", "twice", "twice"]
        assert records.untaken() == 3
    with Records(path, retry_dead=True) as records:
        assert [records.take(key(number)) for number in (0, 100, 101)] == ["answered", "open", "open"]
        records.add_result(key(100), row(100))
        records.add_dead(key(101), row(101))
        assert (records.answered, records.dead) == (4, 1)
    with Records(path) as records:
        assert [records.take(key(number)) for number in (100, 101)] == ["answered", "dead"]
    assert [line["key"] for line in lines(path)] == [key(0), key(1), key(2), key(100)]
    assert len(lines(dead_letters(path))) == 3


def test_a_key_is_all_that_an_answer_depends_on() -> None:
    same = content_key("m", [{"role": "user", "content": "a"}], {"temperature": 1.0})
    assert same == content_key("m", [{"content": "a", "role": "user"}], {"temperature": 1.0})
    others = {
        content_key("n", [{"role": "user", "content": "a"}], {"temperature": 1.0}),
        content_key("m", [{"role": "user", "content": "b"}], {"temperature": 1.0}),
        content_key("m", [{"role": "user", "content": "a"}], {"temperature": 0.5}),
        content_key("m", [{"role": "user", "content": "a"}], {}),
        content_key("m", [{"role": "user", "content": "a\ud800"}], {}),
    }
    assert len(others | {same}) == 6


def test_wherever_the_last_line_is_torn_the_rest_is_whole(path: Path) -> None:
    fill(path, 3)
    whole = path.read_bytes()
    last = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for end in (*range(last, len(whole) - 2, 23), len(whole) - 2, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:end])
        with Records(path) as records:
            # Whole but for its line end, it is whole.
            assert records.answered == (3 if end >= len(whole) - 1 else 2)
            assert records.take(key(2)) == ("answered" if records.answered == 3 else "open")
            if records.answered == 2:
                records.add_result(key(2), row(2))
        assert path.read_bytes() == whole
    path.write_bytes(whole + b"\0" * 4096)  # what a machine that lost its power may leave
    with Records(path) as records:
        assert records.answered == 3
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"response": "x"}\n', r"traces\.jsonl:1: is no record of a question that was asked \(KeyError"),
        ('{"response": "x"}', r"traces\.jsonl:1: is no record"),
        ("my notes", r"traces\.jsonl:1: is no record"),
        ('[{"key":\n', r"traces\.jsonl:1: is no record"),
        ('{"key": "%s"}\n{"key": 3}\n' % ("ab" * 32), r"traces\.jsonl:2: is no record.*; correct the line, or choose"),
    ],
)
def test_somebody_elses_file_is_refused_and_left_alone(path: Path, content: str, words: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(BadInput, match=words), Records(path):
        pass
    assert path.read_text() == content


def test_what_holds_no_line_is_not_there(path: Path) -> None:
    with Records(path) as records:
        assert records.take(key(1)) == "open"
    assert [one.name for one in path.parent.iterdir()] == [".traces.jsonl.lock"]


def test_one_writer_at_a_time(path: Path) -> None:
    with (
        Records(path),
        pytest.raises(BadInput, match=r"is in use by process \d+ .*; wait for it, end it, or .* --out"),
        Records(path),
    ):
        pass


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder; choose another place with --out"), Records(tmp_path):
        pass
    (tmp_path / "notes").write_text("x")
    with pytest.raises(BadInput, match=r"cannot be a folder, a file of that name"), Records(tmp_path / "notes" / "a"):
        pass


def test_a_disk_that_may_not_be_written(tmp_path: Path) -> None:
    with (
        disk(tmp_path / "disk", "ro,size=64k") as locked_disk,
        pytest.raises(BadInput, match=r"no permission to write .*traces\.jsonl.*; choose another place with --out"),
        Records(locked_disk / "traces.jsonl"),
    ):
        pass


def test_a_full_disk_leaves_whole_lines_and_takes_more_later(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=16k") as small:
        path = small / "traces.jsonl"
        with pytest.raises(StageFailed, match=r"the disk is full: .*traces\.jsonl"):
            fill(path, 100, text="x" * 900)
        kept = len(lines(path))
        assert 5 < kept < 16
        with pytest.raises(StageFailed, match="the disk is full"):
            fill(path, 1, text="x" * 9000)
        assert len(lines(path)) == kept
        with Records(path) as records:
            records.add_result(key(201), row(201, "x"))
        assert len(lines(path)) == kept + 1


def test_text_that_is_no_unicode_is_kept_as_json_has_it(path: Path) -> None:
    with Records(path) as records:
        records.add_result(key(1), row(1, "half \ud83d"))
        records.add_result(key(2), row(2))
    assert [line["response"] for line in lines(path)] == ["half \ud83d", "four \u2028 \U0001f600"]


def test_a_line_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write: Callable[[int, bytes], int] = os.write

    def short(handle: int, data: bytes) -> int:
        written.append(data)
        return write(handle, data[: max(1, len(data) // 2)]) if len(written) == 2 else write(handle, data)

    with Records(path) as records:
        monkeypatch.setattr(os, "write", short)
        records.add_result(key(1), row(1))
        assert len(written) == 1
        records.add_result(key(2), row(2))  # of which the system takes half at first
        monkeypatch.undo()
    assert len(lines(path)) == 2
