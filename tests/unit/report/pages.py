"""What the tests of pages share: a reader that checks a page's elements, and words as they are read."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser

from r1mm.report.page import ReportInputs

MadeUp = Callable[..., ReportInputs]
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
VARIANTS = ("as-published", "prefix-with-images", "full-text-only", "as-fixed")


class Reader(HTMLParser):
    """Collects what a browser would see, and fails where an element is closed that is not the open one."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text += data


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def check_self_contained(text: str) -> Reader:
    read = Reader(text)
    ids = Counter(attributes["id"] for _, attributes in read.elements if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for tag, attributes in read.elements:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")
        target = attributes.get("href")
        assert target is None or (target.startswith("#") and target[1:] in ids)
        if tag == "img":
            assert attributes.get("alt")
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
    assert all(place.startswith("#") for place in re.findall(r"url\(\s*['\"]?([^)]*)", text))
    assert "@import" not in text
    return read


def with_few_figures(run: ReportInputs) -> ReportInputs:
    return dataclasses.replace(run, metrics=[], verdict={**run.verdict, "reference_rows": []})
