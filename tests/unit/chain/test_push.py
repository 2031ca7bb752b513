"""The hub's own library against a small server that takes a dataset as the hub does."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from huggingface_hub import constants

from r1mm.chain.push import check_push, push_dataset
from r1mm.cli import main
from r1mm.data.access import Access
from r1mm.errors import BadInput, StageFailed
from tests.loopback import Answer, Asked, serving
from tests.small_assets import access_to

TOKEN, REPO = "hf_planted_secret", "owner/distilled"
PARQUET = b"PAR1" + bytes(range(256)) * 8


@dataclass
class Hub:
    """What came: files by name; `there` lies in the repository already, `refuse` is a status for all that writes."""

    address: str = ""
    there: list[str] = field(default_factory=list)
    refuse: int | None = None
    asked: list[Asked] = field(default_factory=list)
    created: dict[str, object] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    def answer(self, asked: Asked) -> Answer:
        path = asked.path.partition("?")[0]
        if asked.method == "POST" and self.refuse:
            return Answer(self.refuse, b'{"error": "not today"}', {"Content-Type": "application/json"})
        if path == "/api/repos/create":
            self.created = json.loads(asked.body)
            return self._json({"url": f"{self.address}/datasets/{REPO}", "name": REPO, "id": REPO})
        if path.startswith(f"/api/datasets/{REPO}/tree/"):
            return self._json([{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.there])
        if path in (f"/api/datasets/{REPO}", f"/api/datasets/{REPO}/revision/main"):
            return self._json({"id": REPO, "sha": "a" * 40, "siblings": [{"rfilename": one} for one in self.there]})
        if path == f"/api/datasets/{REPO}/preupload/main":
            wanted = json.loads(asked.body)["files"]
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".parquet") else "regular"}
                for one in wanted
            ]
            return self._json({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == f"/datasets/{REPO}.git/info/lfs/objects/batch":
            found = json.loads(asked.body)["objects"]
            upload = [
                {**one, "actions": {"upload": {"href": f"{self.address}/large/{one['oid']}", "header": {}}}}
                for one in found
            ]
            return self._json({"transfer": "basic", "objects": upload})
        if asked.method == "PUT" and path.startswith("/large/"):
            self.large[path.rpartition("/")[2]] = asked.body
            return Answer()
        if path == f"/api/datasets/{REPO}/commit/main":
            self._take(asked.body)
            return self._json({"commitUrl": f"{self.address}/datasets/{REPO}/commit/1", "commitOid": "1" * 40})
        return Answer(404, b"{}", {"Content-Type": "application/json"})

    def _take(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]

    @staticmethod
    def _json(value: object) -> Answer:
        return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    with serving(made.answer) as server:
        made.address, made.asked = server.address, server.asked
        yield made


@pytest.fixture
def access(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Access:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(token))
    # As HF_ENDPOINT and HF_HUB_DISABLE_XET would, which the library looks at when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return access_to(tmp_path, hub=hub.address)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(PARQUET)
    (folder / "README.md").write_text("a card")
    (folder / "provenance.json").write_text("{}")
    return folder


def test_all_files_come_to_a_repository_that_is_private(hub: Hub, access: Access, built: Path) -> None:
    hub.there = [".gitattributes"]
    check_push(REPO, access)
    assert push_dataset(built, REPO, access, "distill build") == f"{hub.address}/datasets/{REPO}"
    assert hub.created == {"name": "distilled", "organization": "owner", "visibility": "private", "type": "dataset"}
    assert hub.files == {
        "data/train-00000-of-00001.parquet": PARQUET,
        "README.md": b"a card",
        "provenance.json": b"{}",
    }
    assert list(hub.large) == [hashlib.sha256(PARQUET).hexdigest()]
    wrote = [one for one in hub.asked if one.path.startswith(f"/api/datasets/{REPO}")]
    assert wrote
    assert all(one.headers["authorization"] == f"Bearer {TOKEN}" for one in wrote)


def test_a_repository_that_holds_something_is_left_alone(hub: Hub, access: Access, built: Path) -> None:
    hub.there = [".gitattributes", "data/train-00000-of-00002.parquet", "README.md"]
    with pytest.raises(
        BadInput, match=r"holds README\.md and 1 more files.*name a new repository; the dataset is whole"
    ):
        push_dataset(built, REPO, access, "distill build")
    assert not hub.files


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (403, BadInput, "refuses to let this token write to owner/distilled"),
        (500, StageFailed, "answered with status 500"),
    ],
)
def test_a_push_that_fails_says_how_to_go_on(
    hub: Hub, access: Access, built: Path, status: int, error: type[Exception], words: str
) -> None:
    hub.refuse = status
    with pytest.raises(error, match=words) as raised:
        push_dataset(built, REPO, access, "distill build")
    assert f"`hf upload {REPO} {built} . --repo-type dataset`" in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_a_hub_that_is_not_there(tmp_path: Path, access: Access, built: Path) -> None:
    with pytest.raises(StageFailed, match=r"127\.0\.0\.1:1 cannot be reached"):
        push_dataset(built, REPO, access_to(tmp_path), "distill build")


@pytest.mark.parametrize("repo", ["nobody", "a/b/c", "owner/na me", "owner/-x", ""])
def test_a_repository_needs_a_name(access: Access, repo: str) -> None:
    with pytest.raises(BadInput, match="give OWNER/NAME"):
        check_push(repo, access)


def test_a_push_without_token_or_network_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["distill", "build", "none.jsonl", "--images", "none", "--out", str(tmp_path / "out"), "--push", REPO]
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert main(arguments) == 2
    assert "--push owner/distilled needs a token that may write: put it into a file" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(arguments) == 2
    assert "--push owner/distilled needs the network, and HF_HUB_OFFLINE says" in capsys.readouterr().err
