import json
from pathlib import Path

import pytest

from r1mm.endpoint.client import Endpoint
from r1mm.endpoint.keys import Key, read_key
from r1mm.errors import BadInput

SECRET = 'sk-planted/"4f1c'


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)


def test_a_key_comes_from_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_key().given
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert (read_key().value, read_key().place, read_key().given) == (SECRET, "OPENAI_API_KEY", True)
    monkeypatch.setenv("SL_KEY", "another")
    assert read_key("SL_KEY").value == "another"
    file = tmp_path / "key"
    file.write_text(f"  {SECRET}\n")
    assert (read_key(None, file).value, read_key(None, file).place) == (SECRET, str(file))


@pytest.mark.parametrize("content", ["", "\n", "two words", "two\nlines", "schlüssel-4f1c", "a\x00b"])
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(BadInput, match=r"key holds no API key") as refused:
        read_key(None, file)
    assert not content.strip() or content.strip() not in str(refused.value)


def test_a_place_that_holds_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="NOT_SET holds no API key; put one there, or name another place"):
        read_key("NOT_SET")
    with pytest.raises(BadInput, match=r"the key file .*none cannot be read \(No such file"):
        read_key(None, tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"sk-\xff\xfe")
    with pytest.raises(BadInput, match=r"cannot be read \(not text\)"):
        read_key(None, tmp_path / "binary")


def test_a_key_is_taken_out_of_text_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Key(SECRET, "somewhere")
    for form in (SECRET, json.dumps(SECRET)[1:-1], json.dumps(SECRET)[1:-1].replace("/", "\\/")):
        assert key.hidden_in(f"Bearer {form}, {form}.") == "Bearer [key], [key]."
    assert SECRET not in repr(key)
    assert SECRET not in repr(Endpoint("http://127.0.0.1:1/v1", "m", key))
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: gateway-secret-1\nX-Team: us")
    assert Key(None, "nowhere").hidden_in("us, gateway-secret-1, none") == "us, [key], none"


def test_what_guards_nothing_stays_a_word() -> None:
    assert Key("EMPTY", "somewhere").hidden_in("The box is EMPTY.") == "The box is EMPTY."
