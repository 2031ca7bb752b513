"""The hub's own library against a small server that speaks the routes it uses."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from r1mm.data.access import Access
from r1mm.data.hub import Wanted, fetch_repository
from r1mm.data.pointers import Pins
from r1mm.data.selection import model_files
from r1mm.errors import BadInput, StageFailed
from tests.loopback import Answer, Asked, serving
from tests.small_assets import access_to

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = b"weights" * 1000
FILES = {
    "config.json": b'{"model_type": "qwen2_vl"}',
    "model.safetensors": LARGE,
    "pytorch_model.bin": b"a pickle",
    "run.py": b"import os",
    "onnx/model.safetensors": b"of no use here",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Hub:
    """A repository Owner/Tiny with one commit; `served` is what its files really hold."""

    address: str = ""
    commits: list[str] = field(default_factory=lambda: [REVISION])
    served: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    trouble: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer:
        if self.trouble:
            return self.trouble.pop(0)
        path = asked.path.partition("?")[0]
        if path == "/api/models/Owner/Tiny/commits/main":
            return self._json(
                [
                    {"id": one, "title": "", "message": "", "authors": [], "date": "2025-02-03T00:00:00.000Z"}
                    for one in self.commits
                ]
            )
        if path == "/api/models/Owner/Tiny":
            return self._json({"id": "Owner/Tiny", "sha": self.commits[0]})
        if path == f"/api/models/Owner/Tiny/revision/{REVISION}":
            siblings = [
                {"rfilename": name, "size": len(data)}
                | ({"lfs": {"size": len(data), "sha256": sha256(data), "pointerSize": 1}} if data == LARGE else {})
                | {"blobId": sha1(data)}
                for name, data in FILES.items()
            ]
            return self._json({"id": "Owner/Tiny", "sha": REVISION, "siblings": siblings})
        start = f"/Owner/Tiny/resolve/{REVISION}/"
        if path.startswith(start) and (data := self.served.get(path.removeprefix(start))) is not None:
            name = path.removeprefix(start)
            etag = sha256(FILES[name]) if FILES[name] == LARGE else sha1(FILES[name])
            return Answer(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION})
        return Answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    @staticmethod
    def _json(value: object) -> Answer:
        return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    with serving(made.answer) as server:
        made.address, made.asked = server.address, server.asked
        yield made


def wanted(revision: str = REVISION, **sha: str) -> Wanted:
    def choose(names: list[str]) -> list[str]:
        return model_files(names, "model Owner/Tiny")

    return Wanted("model", "Owner/Tiny", revision, choose, {"model.safetensors": sha256(LARGE), **sha})


@pytest.fixture
def access(tmp_path: Path, hub: Hub) -> Access:
    return access_to(tmp_path, hub=hub.address)


def test_only_weights_and_their_texts_come(
    hub: Hub, access: Access, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = fetch_repository(wanted(), access, Pins(tmp_path))
    assert {name: path.read_bytes() for name, path in got.files.items()} == {
        name: FILES[name] for name in ("config.json", "model.safetensors")
    }
    assert got.revision == REVISION
    assert "model.safetensors: 100%" in capsys.readouterr().err
    assert not any("pytorch_model" in asked.path or "run.py" in asked.path for asked in hub.asked)


def test_a_short_revision_is_resolved_once_and_held_to(hub: Hub, access: Access, tmp_path: Path) -> None:
    assert fetch_repository(wanted(REVISION[:7]), access, Pins(tmp_path)).revision == REVISION
    assert json.loads((tmp_path / "pins.json").read_text()) == {f"model Owner/Tiny@{REVISION[:7]}": REVISION}
    hub.commits = [REVISION[:7] + "f" * 33]
    with pytest.raises(BadInput, match=f"is {REVISION[:7]}f+ now, it was {REVISION} when it was first fetched"):
        fetch_repository(wanted(REVISION[:7]), access, Pins(tmp_path))
    hub.commits = ["f" * 40]
    with pytest.raises(BadInput, match="revision 0123456 is no commit in the history"):
        fetch_repository(wanted(REVISION[:7]), access, Pins(tmp_path))


def test_offline_uses_what_was_fetched_and_checks_it(hub: Hub, access: Access, tmp_path: Path) -> None:
    offline = access_to(tmp_path, offline=True)
    with pytest.raises(BadInput, match=r"at 0123.* is not in the hub's cache .* run `r1mm assets RECIPE` once"):
        fetch_repository(wanted(), offline, Pins(tmp_path))
    online = fetch_repository(wanted(), access, Pins(tmp_path))
    before = len(hub.asked)
    assert fetch_repository(wanted(REVISION[:7]), offline, Pins(tmp_path)).stamps == online.stamps
    assert len(hub.asked) == before
    blob = online.files["model.safetensors"].resolve()
    blob.write_bytes(b"W" + LARGE[1:])
    with pytest.raises(BadInput, match=r"model.safetensors is corrupted"):
        fetch_repository(wanted(), offline, Pins(tmp_path))
    # With a network it is fetched again.
    assert fetch_repository(wanted(), access, Pins(tmp_path)).stamps == online.stamps


def test_content_that_is_not_what_the_hub_names_is_refused(hub: Hub, access: Access, tmp_path: Path) -> None:
    hub.served["model.safetensors"] = b"W" + LARGE[1:]
    with pytest.raises(BadInput, match=r"model.safetensors came with other content than the hub names .* twice"):
        fetch_repository(wanted(), access, Pins(tmp_path))


def test_content_that_is_not_what_the_recipe_pins_is_refused(access: Access, tmp_path: Path) -> None:
    other = wanted(**{"model.safetensors": "0" * 64})
    with pytest.raises(BadInput, match=f"sha256 {sha256(LARGE)} at {REVISION}, the recipe pins 0000"):
        fetch_repository(other, access, Pins(tmp_path))


def trouble(status: int, **headers: str) -> Callable[[], list[Answer]]:
    return lambda: [Answer(status, b"{}", {key.replace("_", "-"): value for key, value in headers.items()})] * 9


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            trouble(401),
            r"answers 401 \(no access\); it does not exist, is private, or wants its licence accepted: look",
        ),
        (
            trouble(403, X_Error_Code="GatedRepo"),
            r"answers 403 .* accept there, put a token into a file .* HF_TOKEN_PATH",
        ),
        (
            trouble(404, X_Error_Code="RevisionNotFound"),
            r"answers 404 \(not there\); look whether .* has revision 0123",
        ),
    ],
)
def test_refusals_say_what_to_do(
    hub: Hub, access: Access, tmp_path: Path, answers: Callable[[], list[Answer]], said: str
) -> None:
    hub.trouble = answers()
    with pytest.raises(BadInput, match=said) as caught:
        fetch_repository(wanted(), access, Pins(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(hub.asked) == 1


def test_too_many_requests_are_waited_for_and_then_said(hub: Hub, tmp_path: Path) -> None:
    waits: list[float] = []
    patience = type(access_to(tmp_path).patience)(attempts=3, sleep=waits.append, chance=lambda: 1.0)
    access = access_to(tmp_path, hub=hub.address, patience=patience)
    hub.trouble = [Answer(429, headers={"Retry-After": "2"}), Answer(503)]
    assert fetch_repository(wanted(), access, Pins(tmp_path)).revision == REVISION
    assert waits == [2.0, 2.0]
    hub.trouble = [Answer(429)] * 3
    with pytest.raises(StageFailed, match=r"answers 429 \(too many requests\) after 3 attempts"):
        fetch_repository(wanted(), access, Pins(tmp_path))


def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="127.0.0.1:1 cannot be reached .* after 2 attempts; check the network"):
        fetch_repository(wanted(), access_to(tmp_path), Pins(tmp_path))


def test_the_token_comes_from_its_file_alone(
    hub: Hub, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("hf_secret\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_from_the_environment")
    fetch_repository(wanted(), access, Pins(tmp_path))
    assert {asked.headers.get("authorization") for asked in hub.asked} == {"Bearer hf_secret"}
    hub.trouble = [Answer(403)]
    with pytest.raises(BadInput) as caught:
        fetch_repository(wanted(), access, Pins(tmp_path))
    assert "hf_secret" not in str(caught.value) + "".join(capfd.readouterr())


def test_without_a_revision_the_one_found_first_stays(hub: Hub, access: Access, tmp_path: Path) -> None:
    unnamed = Wanted("model", "Owner/Tiny", None, lambda _: ["config.json"], {})
    assert fetch_repository(unnamed, access, Pins(tmp_path)).revision == REVISION
    hub.commits.insert(0, "f" * 40)  # what comes later is not taken
    assert fetch_repository(unnamed, access, Pins(tmp_path)).revision == REVISION
    offline = replace(access, offline=True)
    assert fetch_repository(unnamed, offline, Pins(tmp_path)).revision == REVISION
    (tmp_path / "other").mkdir()
    assert fetch_repository(unnamed, offline, Pins(tmp_path / "other")).revision == REVISION  # the only one here
    nowhere = replace(offline, hub_cache=tmp_path / "empty")
    with pytest.raises(BadInput, match=r"the recipe names no revision, and the hub's cache \(.*empty\) has none"):
        fetch_repository(unnamed, nowhere, Pins(tmp_path / "third"))
