"""What the cards of datasets share: the head that the hub and `datasets` read, tables, and the inputs' hashes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml
from datasets import Features

from r1mm.chain.parquet import TRAIN
from r1mm.chain.provenance import Provenance

NOT_SEEN = "not seen"


class Split(NamedTuple):
    """A split as `datasets` wants to know it; `bytes` as a reader gets them, a picture with every row."""

    name: str
    features: Features
    rows: int
    bytes: int


def front_matter(splits: Sequence[Split], tags: Sequence[str], licence: str | None) -> str:
    """README.md's head.  The training split is the default configuration, any other one of its own."""
    configs, infos = [], []
    for name, features, rows, size in splits:
        config = "default" if name == TRAIN else name
        configs.append({"config_name": config, "data_files": [{"split": name, "path": f"data/{name}-*"}]})
        infos.append(
            {
                "config_name": config,
                "features": [
                    {"name": column, "dtype": "image" if column == "image" else feature.dtype}
                    for column, feature in features.items()
                ],
                "splits": [{"name": name, "num_bytes": size, "num_examples": rows}],
                "dataset_size": size,
            }
        )
    head = {
        **({"license": licence} if licence else {}),
        "task_categories": ["visual-question-answering"],
        "tags": list(tags),
        "configs": configs,
        "dataset_info": infos,
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; what a cell holds stays one cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def inputs_of(record: Provenance) -> str:
    """A chapter: the inputs of all steps, with their sizes and hashes."""
    rows = [
        (step.step, name, one.bytes, f"`{one.sha256}`") for step in record.chain() for name, one in step.inputs.items()
    ]
    return f"## Inputs\n\n{table(('step', 'input', 'bytes', 'sha256'), rows)}"
