"""Where assets come from and how patiently they are asked for, read once from the environment.

R1MM_ASSETS         a local folder that serves everything, without network (its layout: local.py)
R1MM_UPSTREAM_BASE  the address in front of owner/repository/commit/path, for a mirror of upstream's files
R1MM_CACHE          where downloaded files and archives are kept (default: r1mm/ in HF_HOME)
HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN_PATH   the hub library's own
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from r1mm.errors import BadInput

# Read by the hub's library when it is imported: its second protocol (Xet) neither resumes a file nor raises errors that
# say whether to try again.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

LOCAL_VARIABLE = "R1MM_ASSETS"
UPSTREAM_VARIABLE = "R1MM_UPSTREAM_BASE"
CACHE_VARIABLE = "R1MM_CACHE"
UPSTREAM = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Patience:
    """How often and after how many seconds a request is made again; `sleep` and `chance` are given by tests."""

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random  # in [0, 1)

    def wait(self, failures: int, told: float | None = None) -> None:
        """Wait after the `failures`-th failure in a row: as long as the server `told`, else twice as long each time.

        Up to half of a wait is left to chance, so that many machines do not come back in step.
        """
        if told is not None:
            self.sleep(min(told, 15 * self.longest))
            return
        whole = min(self.first * 2 ** (failures - 1), self.longest)
        self.sleep(whole * (0.5 + self.chance() / 2))


@dataclass(frozen=True)
class Access:
    """Where assets come from.  `local` serves everything when it is set; `downloads` keeps what came by plain HTTPS."""

    hub: str
    hub_cache: Path
    downloads: Path
    upstream: str = UPSTREAM
    local: Path | None = None
    offline: bool = False
    patience: Patience = field(default_factory=Patience)


def access_from_environment() -> Access:
    """The access that the environment describes.  BadInput when R1MM_ASSETS is no folder."""
    from huggingface_hub import constants

    named = os.environ.get(LOCAL_VARIABLE)
    local = Path(named).resolve() if named else None
    if local is not None and not local.is_dir():
        raise BadInput(
            f"{LOCAL_VARIABLE}={named} is no folder; give one with models/, datasets/, files/ and archives/ in it, "
            f"or unset {LOCAL_VARIABLE} to fetch from the network"
        )
    cache = os.environ.get(CACHE_VARIABLE)
    return Access(
        hub=constants.ENDPOINT,
        hub_cache=Path(constants.HF_HUB_CACHE),
        # With the hub's cache, which a container keeps in a volume.
        downloads=Path(cache).resolve() if cache else Path(constants.HF_HOME) / "r1mm",
        upstream=os.environ.get(UPSTREAM_VARIABLE, UPSTREAM).rstrip("/"),
        local=local,
        offline=constants.is_offline_mode(),
    )
