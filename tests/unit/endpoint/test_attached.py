"""Pictures in questions: sent whole, known by their hash, held only while a request is made."""

import base64
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from r1mm.endpoint.ask import Request, Unfit
from r1mm.endpoint.attached import PictureFile, identity, picture_part
from r1mm.endpoint.records import content_key, dead_letters
from tests.asking import ask, endpoint, lines
from tests.chat_server import chatting


def picture(path: Path, data: bytes) -> PictureFile:
    path.write_bytes(data)
    return PictureFile(path, sha256(data).hexdigest(), "image/png")


def about(shown: PictureFile, text: str = "How many?", **more: Any) -> Request:
    return Request([{"role": "user", "content": [picture_part(shown), {"type": "text", "text": text}]}], **more)


def test_a_picture_is_sent_as_openai_has_it_and_known_by_its_bytes(tmp_path: Path) -> None:
    one, other = picture(tmp_path / "a.png", b"first"), picture(tmp_path / "b.png", b"second")
    moved = picture(tmp_path / "c.png", b"first")
    out = tmp_path / "out.jsonl"
    with chatting() as chat:
        found = ask(endpoint(chat.address), [about(one), about(other), about(moved)], out)
        (message,) = next(body for body in chat.sent if "Zmlyc3Q" in str(body))["messages"]
    assert (found.answered, found.twice) == (2, 1)  # the third is the first under another name
    url = f"data:image/png;base64,{base64.b64encode(b'first').decode()}"
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "How many?"},
    ]
    assert "Zmlyc3Q" not in out.read_text()
    messages = about(one).messages
    assert content_key("thinker-1", messages, {}) in {row["key"] for row in lines(out)}
    assert content_key("m", messages, {}) != content_key("m", about(other).messages, {})
    with pytest.raises(TypeError, match="set has no place in a message"):
        identity(set())


def test_a_picture_that_is_another_one_or_gone_by_then_is_a_dead_letter(tmp_path: Path) -> None:
    shown = [picture(tmp_path / f"{name}.png", name.encode()) for name in ("good", "other", "gone")]
    shown[1].path.write_bytes(b"changed")
    shown[2].path.unlink()
    out = tmp_path / "out.jsonl"
    with chatting() as chat:
        found = ask(endpoint(chat.address), [about(one) for one in shown], out)
        assert len(chat.sent) == 1
    assert (found.answered, found.dead) == (1, 2)
    reasons = sorted(row["reason"].partition(".png ")[2] for row in lines(dead_letters(out)))
    assert reasons == ["cannot be read (No such file or directory)", "has changed since it was looked at"]


def test_what_is_unfit_is_a_dead_letter_and_never_asked(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    shown = picture(tmp_path / "a.png", b"x")
    many = [
        about(shown, f"{i}", row={"item": i}, unfit=Unfit("too small", f"{i} px") if i else None) for i in range(60)
    ]
    with chatting() as chat:
        found = ask(endpoint(chat.address), many, out)
        assert len(chat.sent) == found.requests == found.answered == 1
        again = ask(endpoint(chat.address), many, out)
    assert (found.dead, found.dead_reasons, again.dead_before) == (59, {"too small": 59}, 59)
    letters = {row["item"]: (row["reason"], row["body"], row["attempts"]) for row in lines(dead_letters(out))}
    assert letters == {i: ("too small", f"{i} px", 0) for i in range(1, 60)}


def test_one_question_is_asked_as_often_as_it_is_to_be(tmp_path: Path) -> None:
    shown = picture(tmp_path / "a.png", b"x")
    with chatting() as chat:
        found = ask(endpoint(chat.address), [about(shown, attempt=i) for i in range(4)], tmp_path / "out.jsonl")
        assert list(chat.asked.values()) == [4]
    assert (found.answered, found.twice) == (4, 0)


def test_pictures_that_wait_take_no_memory(tmp_path: Path) -> None:
    size = 300_000
    shown = [picture(tmp_path / f"{i}.png", bytes([i]) * size) for i in range(20)]
    with chatting(keep=False) as chat:
        tracemalloc.start()
        found = ask(endpoint(chat.address), [about(one) for one in shown], tmp_path / "out.jsonl", concurrency=1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found.answered == 20
    assert most < 14 * size  # one request: the file, its base64, its JSON, on the server's side too; all would be 27
