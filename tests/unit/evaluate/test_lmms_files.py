"""LongVideoBench's files as the hub has them: a tar in parts, which cut through its members."""

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from r1mm.errors import BadInput, StageFailed
from r1mm.evaluate.lmms_files import clips_folder
from r1mm.evaluate.lmms_items import clip_names

CLIPS = {f"clip-{i}.mp4": bytes([i]) * (3000 + 700 * i) for i in range(5)}


def hub_files(folder: Path, part: int = 5000) -> Path:
    folder.mkdir()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in {"videos/readme.txt": b"x", **{f"videos/{n}": c for n, c in CLIPS.items()}}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("videos/clip-9.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    data = whole.getvalue()
    for number, start in enumerate(range(0, len(data), part)):
        (folder / f"videos.tar.part.a{chr(97 + number)}").write_bytes(data[start : start + part])
    (folder / "lvb_val.json").write_text(json.dumps([{"video_path": name} for name in [*CLIPS][:3]] * 2))
    return folder


def test_only_the_clips_that_are_asked_about_are_unpacked_and_only_once(tmp_path: Path) -> None:
    folder, into = hub_files(tmp_path / "hub"), tmp_path / "clips"
    names = clip_names(folder / "lvb_val.json")
    assert names == [*CLIPS][:3]
    assert clips_folder(folder, names, into) == into
    assert {path.name: path.read_bytes() for path in into.glob("*.mp4")} == {name: CLIPS[name] for name in names}
    (into / names[1]).write_bytes(b"what a kill left")
    (into / "unpacked.json").unlink()
    first = (into / names[0]).stat().st_mtime_ns
    clips_folder(folder, names, into)
    assert (into / names[1]).read_bytes() == CLIPS[names[1]]
    assert (into / names[0]).stat().st_mtime_ns == first
    (folder / "videos.tar.part.aa").write_bytes((folder / "videos.tar.part.aa").read_bytes())
    (into / names[2]).unlink()
    clips_folder(folder, names, into)  # done is done: what was removed since is `read_items` to say
    assert not (into / names[2]).exists()


def test_clips_that_do_not_fit_on_the_disk_are_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=(64 << 20) + 6699))
    folder, into = hub_files(tmp_path / "hub"), tmp_path / "clips"
    with pytest.raises(StageFailed, match=r"clips of videos\.tar\.part\.aa \.\.\.: the disk of .*clips is full"):
        clips_folder(folder, [*CLIPS][:2], into)  # 3000 and 3700 bytes
    assert [path.name for path in into.iterdir()] == []
    (into / "clip-0.mp4").write_bytes(CLIPS["clip-0.mp4"])
    assert clips_folder(folder, [*CLIPS][:2], into) == into


def test_clips_that_lie_in_a_folder_are_taken_from_there(tmp_path: Path) -> None:
    folder = hub_files(tmp_path / "hub")
    (folder / "videos").mkdir()
    (folder / "videos" / "clip-0.mp4").write_bytes(CLIPS["clip-0.mp4"])
    assert clips_folder(folder, ["clip-0.mp4"], tmp_path / "clips") == folder / "videos"
    assert not (tmp_path / "clips").exists()
    (folder / "videos" / "clip-0.mp4").unlink()  # an empty folder is not what the archive holds
    assert clips_folder(folder, ["clip-0.mp4"], tmp_path / "clips") == tmp_path / "clips"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = hub_files(tmp_path / "hub")
    with pytest.raises(BadInput, match=r"2 of 3 clips are not in .*part\.aa to \S*part\.\w+, such as clip-9"):
        clips_folder(folder, ["clip-0.mp4", "clip-9.mp4", "lost.mp4"], tmp_path / "clips")
    sorted(folder.glob("videos.tar.part.*"))[-1].unlink()
    sorted(folder.glob("videos.tar.part.*"))[-1].unlink()
    with pytest.raises(BadInput, match=r"(no whole archive|are not in)"):
        clips_folder(folder, [*CLIPS], tmp_path / "clips")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"holds neither a folder videos nor videos\.tar\.part"):
        clips_folder(tmp_path / "empty", ["a.mp4"], tmp_path / "clips")
    (tmp_path / "empty" / "lvb_val.json").write_text('[{"video": "a.mp4"}]')
    with pytest.raises(BadInput, match=r"names no clip in video_path"):
        clip_names(tmp_path / "empty" / "lvb_val.json")
