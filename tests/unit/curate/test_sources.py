import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1mm.chain.provenance import read_provenance
from r1mm.cli import main
from r1mm.curate.sources import Source, write_items
from r1mm.errors import BadInput
from r1mm.rundir import read_jsonl


def talk(*turns: str, image: str = "FigureQA/images/1.png", **more: Any) -> dict[str, Any]:
    said = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]
    return {"image": image, "conversations": said, **more}


HINTED = "Hint: End with the answer.\nQuestion: How many?"
MATHV = [
    talk(f"<image>\n{HINTED}", "The answer is 8", id="identity_0"),
    talk("<image>\nWho?", "Ann.", "And when?", "At 8.", image="2.png"),
]


def test_the_published_forms_become_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.json").write_text(json.dumps([*MATHV, {"conversations": [], "id": "words alone"}]))
    (tmp_path / "qa.jsonl").write_text(json.dumps({"image": "3.png", "question": "Angle?", "answer": 40}) + "\n")
    pq.write_table(pa.Table.from_pylist([talk("<image>\nX?", "Answer:B", image="4.png")]), tmp_path / "geo.parquet")
    sources = [("train.json", "mathv"), ("qa.jsonl", ""), ("geo.parquet", "geo/images")]
    given = [part for name, folder in sources for part in ("--source", str(tmp_path / name), folder)]
    out = tmp_path / "items.jsonl"
    assert main(["curate", "items", *given, "--out", str(out)]) == 0
    rows = read_jsonl(out)
    assert [tuple(row.values()) for row in rows] == [
        (
            "mathv/FigureQA/images/1.png",
            HINTED,
            "The answer is 8",
            "train.json",
        ),
        ("mathv/2.png", "Who?", "Ann.", "train.json"),
        ("mathv/2.png", "And when?", "At 8.", "train.json"),
        ("3.png", "Angle?", "40", "qa.jsonl"),
        ("geo/images/4.png", "X?", "Answer:B", "geo.parquet"),
    ]
    assert "5 items (train.json 3, entries without a picture, left out 1, qa.jsonl 1" in capsys.readouterr().out
    record, _ = read_provenance(out)
    assert record is not None
    assert (record.step, set(record.inputs), record.counts["items"]) == (
        "curate items",
        {"train.json", "qa.jsonl", "geo.parquet"},
        5,
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '[{"image": "1.png", "question": "x"}]', r"a\.json\[0\]: answer: Field required"),
        ("a.json", "[3]", r"a\.json\[0\]: no object; an entry holds image, question and answer"),
        ("a.json", json.dumps(MATHV)[:-30], r"a\.json is no whole JSON list: .*, after entry 0; it is truncated"),
        ("a.json", json.dumps([talk("Q", "A", "Q")]), r"a\.json\[0\]: its turns are not question and answer"),
        ("a.json", json.dumps([talk("Q", " ")]), r"a\.json\[0\]: answer: String should have at least 1 character"),
        ("a.json", "[]", r"a\.json: no question about a picture"),
        ("a.jsonl", '{"image": "1.png"}\n', r"a\.jsonl:1: question: Field required"),
        ("a.parquet", "x", r"a\.parquet is no readable parquet file"),
        ("a.csv", "x", r"a\.csv is called neither \.jsonl, \.json nor \.parquet"),
    ],
)
def test_what_is_of_no_known_form_is_named_and_nothing_is_left(
    name: str, content: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=words):
        write_items([Source(tmp_path / name, "")], tmp_path / "out" / "items.jsonl")
    assert not list((tmp_path / "out").iterdir())


def test_a_source_is_there_and_has_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        write_items([Source(tmp_path / "no.json", "")], tmp_path / "items.jsonl")
    with pytest.raises(BadInput, match="two sources are called"):
        write_items([Source(tmp_path / "no.json", "a"), Source(tmp_path / "no.json", "b")], tmp_path / "items.jsonl")
