"""YAML files in the form of a schema: every error names the file, the line, the value seen and what to write instead.

A file may extend the one of the same name in a sibling directory, and then states only what differs.
"""

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from r1mm.errors import BadInput
from r1mm.sourced import SOURCE_FORMS


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 reads `1e-4` as a string; hyper-parameters are written so, and mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    # To the end: `0.14.0` is no number.
    re.compile(r"([-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)|[-+]?\d[\d_]*\.[\d_]*|[-+]?\.(inf|Inf)|\.(nan|NaN))$"),
    list("-+0123456789."),
)
Place = tuple[str | int, ...]


def _build(loader: _Loader, node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> Any:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            line = key_node.start_mark.line + 1
            if key in mapping:
                raise BadInput(f"{path}:{line}: key {key!r} stands here twice; keep one")
            mapping[key] = _build(loader, value_node, (*place, key), lines, path)
            lines[(*place, key)] = line
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def read_yaml(path: Path) -> tuple[Any, dict[Place, int]]:
    """A YAML file's content, and the line of every key and item by its place."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        content = _build(loader, node, (), lines, path) if node else None
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML: {error}") from error
    return content, lines


def line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of a place, or of the nearest part around it that stands in the file."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _explain(error: ValidationError, path: Path, lines: dict[Place, int], model: type[BaseModel]) -> str:
    out = []
    for item in error.errors():
        place = tuple(item["loc"])
        where = f"{path}:{line_of(place, lines)}: {'.'.join(map(str, place)) or 'file'}"
        seen = repr(item["input"])
        seen = seen if len(seen) <= 80 else seen[:77] + "..."
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(place[-1]), model.model_fields, n=1) if len(place) == 1 else []
            hint = f"; did you mean {near[0]!r}?" if near else "; remove it or correct its name"
            out.append(f"{where}: unknown key (value {seen}){hint}")
        elif item["type"] == "missing" and place[-1] == "source":
            out.append(f"{where}: has no source (value {seen}); add source: {SOURCE_FORMS}")
        elif item["type"] == "missing":
            out.append(f"{where}: is missing; add it")
        elif len(place) > 1 and item["type"] == "model_type":
            out.append(f"{where}: is {seen}, without a source; write {{value: {seen}, source: ...}}")
        else:
            out.append(f"{where}: {item['msg'].removeprefix('Value error, ')} (value {seen})")
    return "\n".join(out)


M = TypeVar("M", bound=BaseModel)


def _merged(base: Any, changes: Any, place: Place = ()) -> Any:
    """`base` with `changes` on top, mapping by mapping; what has a source (a setting, an asset) is replaced whole.

    `key: null` takes the key away; KeyError with its place where `base` has no such key.
    """
    if not (isinstance(base, dict) and isinstance(changes, dict)) or "source" in changes:
        return changes
    merged = dict(base)
    for key, change in changes.items():
        if change is not None:
            merged[key] = _merged(base.get(key), change, (*place, key))
        elif key in base:
            del merged[key]
        else:
            raise KeyError((*place, key))
    return merged


def _extended(path: Path, content: Any, lines: dict[Place, int], own: tuple[str, ...], known: tuple[str, ...]) -> Any:
    """A file's content on top of those of the recipes that it `extends`: the same file in sibling directories.

    Of several the later ones lie on top, and one may itself extend those in `known`, which were named before it: no
    file is read that the reader is not told of.  The keys in `own` are never taken over.
    """
    if not isinstance(content, dict) or "extends" not in content:
        return content
    where = f"{path}:{lines[('extends',)]}: extends {content['extends']!r}"
    names = [str(name) for name in content["extends"]] if isinstance(content["extends"], list) else [content["extends"]]
    base: Any = {}
    for name in names:
        parent = path.parent.parent / str(name) / path.name
        if not parent.is_file():
            raise BadInput(f"{where}, but there is no {parent}")
        parents, its_lines = read_yaml(parent)
        further = parents.get("extends", []) if isinstance(parents, dict) else None
        if further is None or any(each not in known for each in (further if isinstance(further, list) else [further])):
            raise BadInput(f"{where}, and {parent} itself extends a recipe; extend that one")
        base = _merged(base, _extended(parent, parents, its_lines, own, known))
        known = (*known, name)
    changes = {key: content[key] for key in content if key != "extends"}
    try:
        return _merged({key: base[key] for key in base if key not in own}, changes)
    except KeyError as error:
        place_of = error.args[0]
        raise BadInput(
            f"{path}:{line_of(place_of, lines)}: {'.'.join(map(str, place_of))}: null takes away what "
            f"{' and '.join(map(str, names))} does not have; remove the line"
        ) from error


def load_file(path: Path, model: type[M], own: tuple[str, ...] = ()) -> tuple[M, dict[Place, int]]:
    """A YAML file in the form of `model`, on top of the one it extends, and the lines of what stands in it itself.

    Raises BadInput with file and line.
    """
    content, lines = read_yaml(path)
    content = _extended(path, content, lines, own, ())
    try:
        return model.model_validate(content), lines
    except ValidationError as error:
        raise BadInput(_explain(error, path, lines, model)) from error
