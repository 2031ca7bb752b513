from pathlib import Path

import pytest

from tests.small_assets import make_local


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder for R1MM_ASSETS."""
    return make_local(tmp_path / "assets")
