"""MMMU and MathVista in small: parquet files of their hubs' columns, and a tiny Qwen2-VL that knows their answers.

Ten items each, of every kind that the benchmarks have, about pictures of one grey.  Each question is asked of a bright
picture and of a dark one, or of several in two orders, and the model's answers differ: it has them from the pictures.
It was taught on the very prompts that lmms-eval is to ask, MMMU's with thoughts and MathVista's without, so that
another wording, another order or a lost picture gives other answers.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

SIZE = 56
THINK = "{question}\nThink first.\n"
DIRECT = "{prompt}"
_LEVELS = {"b": 210, "d": 40}
_LETTER = "Answer with the option's letter from the given choices directly."
_WORD = "Answer the question using a single word or phrase."
_INTEGER = "Answer the question using a single integer number."
_ONE_PLACE = "Answer the question using a single floating-point number with one decimal place."
_TWO_PLACES = "Answer the question using a single floating-point number with two decimal places."
_LIST = "Answer the question using a Python list."
_SEVEN = "".join(f"<image {number}>" for number in range(1, 8))


@dataclass(frozen=True)
class Case:
    """An item.  `pictures`: b for a bright one, d for a dark; `says`: the model's answer; `right`: whether it is."""

    pictures: str
    question: str
    answer: str
    says: str
    right: bool
    options: tuple[str, ...] = ()
    form: str = ""
    precision: float | None = None
    unit: str | None = None


_BRIGHT = {"question": "Is <image 1> bright?", "options": ("bright", "dark")}
_SECOND = {"question": "Is <image 2> brighter than <image 1>?", "options": ("yes", "no", "the same")}
_WHICH = {"question": "Which is bright?", "options": ("<image 1>", "<image 2>")}
_LAST = {"question": f"{_SEVEN} What is the last of these?"}
MMMU = (
    Case("b", answer="A", says="A", right=True, **_BRIGHT),
    Case("d", answer="B", says="B.", right=True, **_BRIGHT),
    Case("db", answer="A", says="(A)", right=True, **_SECOND),
    Case("bd", answer="C", says="B", right=False, **_SECOND),
    Case("bd", answer="A", says="A", right=True, **_WHICH),
    Case("db", answer="B", says="neither", right=False, **_WHICH),
    Case("ddddddb", answer="bright", says="bright", right=True, **_LAST),
    Case("ddddddd", answer="['black', 'dark']", says="dark", right=True, **_LAST),
    Case("b", "How bright is <image 1>?", "210", "the level is 210", True),
    Case("d", "How bright is <image 1>?", "2000", "the level is 40", False),
)
_SHADE = {"question": "Which shade?", "options": ("dark", "bright", "grey")}
_COUNT = {"question": "How many dots?", "form": "integer"}
_FAR = {"question": "How far?", "form": "float", "precision": 1.0, "unit": "m"}
MATHVISTA = (
    Case("b", answer="bright", says="B", right=True, **_SHADE),
    Case("d", answer="dark", says="A. dark", right=True, **_SHADE),
    Case("b", "Which fraction?", "8/11", "8/11", True, ("3/11", "8/11")),
    Case("d", "Which fraction?", "3/11", "3/11 or 8/11", False, ("3/11", "8/11")),
    Case("b", answer="14", says="14", right=True, **_COUNT),
    Case("d", answer="2", says="2 or 3", right=False, **_COUNT),
    Case("b", answer="1.2", says="1.2", right=True, **_FAR),
    Case("d", answer="0.5", says="0.5 m", right=True, **_FAR),
    Case("b", "How much?", "0.61", "0.614", True, form="float", precision=2.0, unit="$"),
    Case("b", "Which years?", "[2007, 2008]", "[2007,2008]", True, form="list"),
)


def _png(level: int) -> dict[str, Any]:
    held = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), (level, level, level)).save(held, "PNG")
    return {"bytes": held.getvalue(), "path": None}


def write_parquet(path: Path, rows: list[dict[str, Any]], images: tuple[str, ...]) -> Path:
    """A parquet file as the datasets library publishes them: what it says of its features is of another version."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.Table.from_pylist(rows)
    for name in images:
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, pyarrow.field(name, kind), table.column(name).cast(kind))
    features = {"info": {"features": {"id": {"dtype": "string", "_type": "Value"}}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    return path


def mmmu_rows() -> list[dict[str, Any]]:
    """The ten items with MMMU's columns."""
    return [
        {
            "id": f"validation_{'Art' if number < 6 else 'Math'}_{number + 1}",
            "question": case.question,
            "options": str(list(case.options)),
            "explanation": "",
            **{
                f"image_{place + 1}": _png(_LEVELS[case.pictures[place]]) if place < len(case.pictures) else None
                for place in range(7)
            },
            "img_type": "['Photographs']",
            "answer": case.answer,
            "topic_difficulty": "Easy",
            "question_type": "multiple-choice" if case.options else "open",
            "subfield": "Shades",
        }
        for number, case in enumerate(MMMU)
    ]


def mathvista_rows() -> list[dict[str, Any]]:
    """The ten items with MathVista's columns."""
    return [
        {
            "pid": str(number + 1),
            "question": case.question,
            "image": f"images/{number + 1}.jpg",
            "decoded_image": _png(_LEVELS[case.pictures]),
            "choices": list(case.options) or None,
            "unit": case.unit,
            "precision": case.precision,
            "answer": case.answer,
            "question_type": "multi_choice" if case.options else "free_form",
            "answer_type": case.form or "text",
            "metadata": {"split": "testmini", "skills": ["arithmetic reasoning"]},
            "query": "not read",
        }
        for number, case in enumerate(MATHVISTA)
    ]


def write_mmmu(folder: Path) -> list[Path]:
    """The items in a file for each of two subjects, as MMMU's own repository has them."""
    rows = mmmu_rows()
    images = tuple(f"image_{number}" for number in range(1, 8))
    return [
        write_parquet(folder / "Art" / "validation-00000-of-00001.parquet", rows[:6], images),
        write_parquet(folder / "Math" / "validation-00000-of-00001.parquet", rows[6:], images),
    ]


def write_mathvista(folder: Path) -> list[Path]:
    """The items in one file."""
    path = folder / "data" / "testmini-00000-of-00001-725687bf7a18d64b.parquet"
    return [write_parquet(path, mathvista_rows(), ("decoded_image",))]


def mmmu_prompts(case: Case) -> tuple[str, str]:
    """What the model is asked where it is to think, and where it is not."""
    letters = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCDEFG", case.options, strict=False))
    asked = f"{case.question}\n{letters}" if case.options else case.question
    return f"{asked}\nThink first.\n", f"{asked}\n\n{_LETTER if case.options else _WORD}"


def mathvista_prompts(case: Case) -> tuple[str, str]:
    """What the model is asked where it is to think, and by the task mathvista_testmini_format where it is not."""
    asked = case.question + (f" (Unit: {case.unit})" if case.unit else "")
    listed, lettered = "", ""
    if case.options:
        pairs = list(zip("ABCDEFG", case.options, strict=False))
        listed = "\nChoices:" + "".join(f"\n({letter}) {option}" for letter, option in pairs)
        lettered = "".join(f"\n{letter}. {option}" for letter, option in pairs)
    hint = {"": _LETTER, "integer": _INTEGER, "list": _LIST, "float": _ONE_PLACE}[case.form]
    hint = _TWO_PLACES if case.precision == 2.0 else hint
    return f"Question: {asked}{listed}\nThink first.\n", f"{asked}{lettered}\n{hint}"


def thinking(answer: str) -> str:
    """An answer after thoughts of two paragraphs, in which other letters and numbers stand."""
    return f"<think>\n Before 7 B\n\n Certainly A 3\n</think>\n<answer> {answer}</answer>"


def make_picture_checkpoint(folder: Path, steps: int = 1000) -> Path:
    """Teach the tiny model to think about MMMU's items and to answer MathVista's directly, and save it."""
    import torch

    from r1mm.mini.language import tokenizer_of
    from r1mm.mini.model import build_model, build_processor, save
    from tests.lmms_assets import TINY, teach

    pairs = [(case.pictures, mmmu_prompts(case)[0], thinking(case.says)) for case in MMMU]
    pairs += [(case.pictures, mathvista_prompts(case)[1], case.says) for case in MATHVISTA]
    tokenizer = tokenizer_of(
        {_LETTER, _WORD, _INTEGER, _ONE_PLACE, _TWO_PLACES, _LIST}, [f"{p}{a}" for _, p, a in pairs]
    )
    processor = build_processor(tokenizer, SIZE)
    model = build_model(TINY, tokenizer, seed=1).train()
    examples: list[dict[str, Any]] = []
    for pictures, prompt, answer in pairs:
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        images = [Image.new("RGB", (SIZE, SIZE), (_LEVELS[one],) * 3) for one in pictures]
        inputs = processor(text=[f"{text}{answer}<|im_end|>"], images=images, return_tensors="pt")
        labels = inputs["input_ids"].clone()
        labels[:, : -len(tokenizer(f"{answer}<|im_end|>")["input_ids"])] = -100
        examples.append({**inputs, "labels": labels})
    torch.manual_seed(1)
    teach(model, examples, steps, learning_rate=4e-3, together=4)
    save(model.eval(), processor, folder)
    return folder
