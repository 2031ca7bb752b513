"""Made-up outputs for the tests of the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1mm.expected import Claim
from r1mm.recipe import Condition

SOURCE = "our choice: made up for this test"


@dataclass(frozen=True)
class Scored:
    item: str
    tokens: int = 20
    truth: int = 2
    parsed: int | None = 2
    correct: bool = True
    format: bool = True
    direct: bool = False


def scored(rights: Sequence[bool], **changes: Any) -> list[Scored]:
    return [Scored(item=f"i{k}", correct=right, parsed=2 if right else 3, **changes) for k, right in enumerate(rights)]


def first(count: int, n: int = 200, skip: int = 0) -> list[bool]:
    """`count` items right, from item `skip` on."""
    return [skip <= k < skip + count for k in range(n)]


def outputs(
    base: int, trained: int, n: int = 200, direct: int = 172, skip: int = 0, thinks: bool = True
) -> dict[Condition, list[Scored]]:
    return {
        "base-think": scored(first(base, n)),
        "base-direct": scored(first(direct, n), format=False, direct=True),
        "trained-think": scored(first(trained, n, skip), format=thinks, direct=not thinks),
    }


def claim(metric: str, test: str, reference: float | None, margin: float = 0.0, **changes: Any) -> Claim:
    whole: dict[str, Any] = {
        "id": f"{metric}-{test}-{changes.get('variant', 'v')}",
        "variant": "v",
        "statement": "the statement",
        "metric": metric,
        "split": "set",
        "test": test,
        "reference": reference,
        "margin": margin,
        "source": SOURCE,
    }
    return Claim.model_validate(whole | changes)
