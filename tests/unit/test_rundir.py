import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1mm.errors import BadInput, StageFailed
from r1mm.rundir import (
    StageRecord,
    files_below,
    iter_jsonl,
    locked,
    new_folder,
    read_jsonl,
    read_record,
    record_path,
    sha256_file,
    stamp,
    verify_file,
    write_bytes,
    write_jsonl,
    write_record,
    write_text,
)

RECORD = StageRecord(
    stage="grpo", code="c" * 64, inputs={"seed": "1"}, outputs={}, started="2026-01-01T00:00:00+00:00", seconds=1.5
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "deep" / "er" / "a.txt", "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(TypeError):
        write_bytes(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@contextlib.contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A small disk of its own, mounted at `folder`."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=False).returncode:
        pytest.skip("this machine does not let tests mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=64k") as small:
        with pytest.raises(StageFailed, match="the disk is full: .*big.bin"):
            write_bytes(small / "big.bin", b"x" * 200_000)
        assert list(small.iterdir()) == []


def test_no_permission_is_one_clear_error(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "ro,size=64k") as locked_disk:
        with pytest.raises(BadInput, match=r"no permission to write .*a\.txt.*choose another place with --runs"):
            write_text(locked_disk / "a.txt", "x")
        with pytest.raises(BadInput, match="no permission to write .*deep"):
            write_text(locked_disk / "deep" / "a.txt", "x")


def test_a_file_in_the_way_of_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("notes")
    with pytest.raises(BadInput, match=r"cannot be a folder, a file of that name is in the way"):
        write_text(tmp_path / "runs" / "a" / "b.txt", "x")


def test_what_a_killed_write_left_is_no_output(tmp_path: Path) -> None:
    (tmp_path / ".b.txt.x1y2").write_text("half")
    write_text(tmp_path / "b.txt", "whole")
    assert list(files_below(tmp_path, tmp_path)) == ["b.txt"]


def test_a_record_survives_the_round_trip(tmp_path: Path) -> None:
    written = write_record(tmp_path, RECORD)
    assert read_record(tmp_path, "grpo") == written
    assert read_record(tmp_path, "evaluation") is None


@pytest.mark.parametrize("damage", ["truncated", "edited", "emptied"])
def test_a_damaged_record_is_refused(tmp_path: Path, damage: str) -> None:
    write_record(tmp_path, RECORD)
    path = record_path(tmp_path, "grpo")
    text = path.read_text()
    path.write_text({"truncated": text[:60], "edited": text.replace("1.5", "9.5"), "emptied": ""}[damage])
    with pytest.raises(BadInput, match=r"record\.json.*delete .* to redo stage grpo"):
        read_record(tmp_path, "grpo")


def test_verification_names_the_checksums(tmp_path: Path) -> None:
    path = write_text(tmp_path / "model.safetensors", "weights")
    good = stamp(path)
    verify_file(path, good, "fetch it again")
    path.write_text("weighty")
    with pytest.raises(
        BadInput, match=rf"corrupted: sha256 {sha256_file(path)}, recorded {good.sha256}; fetch it again"
    ):
        verify_file(path, good, "fetch it again")
    path.write_text("wei")
    with pytest.raises(BadInput, match=rf"truncated or changed: 3 bytes, recorded 7 with sha256 {good.sha256}"):
        verify_file(path, good, "fetch it again")
    path.unlink()
    with pytest.raises(BadInput, match="is missing"):
        verify_file(path, good, "fetch it again")


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n{oops\n")
    with pytest.raises(BadInput, match=r"a\.jsonl:2: not JSON"):
        read_jsonl(path)


def test_a_line_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(BadInput, match=r"a\.jsonl:2: not JSON: 'utf-8' codec"):
        list(iter_jsonl(path))


def test_rows_that_end_in_an_error_leave_what_was_there(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise ValueError("the second row")

    path = write_jsonl(tmp_path / "a.jsonl", [{"a": 0}])
    with pytest.raises(ValueError, match="the second row"):
        write_jsonl(path, rows())
    assert read_jsonl(path) == [{"a": 0}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_filled_whole_or_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "made"

    def stopped() -> None:
        with new_folder(path) as folder:
            (folder / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []
    path.mkdir()  # an empty one is no obstacle
    with new_folder(path) as folder:
        (folder / "whole").write_text("")
    assert [one.name for one in path.iterdir()] == ["whole"]
    with pytest.raises(BadInput, match="made is there already and is not written over"):
        stopped()


def test_one_writer_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        code = f"from pathlib import Path\nfrom r1mm.rundir import locked\nwith locked(Path({str(tmp_path)!r})): pass"
        second = run(code)
        assert f"is in use by process {os.getpid()}" in second.stderr
    killed = run(code.replace("pass", "__import__('os').kill(__import__('os').getpid(), 9)"))
    assert killed.returncode == -9
    with locked(tmp_path):
        pass


def test_lines_of_json_end_at_line_feeds_alone(tmp_path: Path) -> None:
    rows = [{"a": "one\u2028two\x85three"}, {"b": "\r"}]
    assert read_jsonl(write_jsonl(tmp_path / "a.jsonl", rows)) == rows
    assert read_jsonl(write_text(tmp_path / "b.jsonl", '{"a": 1}\r\n{"a": 2}')) == [{"a": 1}, {"a": 2}]
    assert read_jsonl(write_text(tmp_path / "c.jsonl", "")) == []
