"""A headless browser for the tests that look at a page as a reader sees it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_SECONDS = 300
SCREENSHOT_SECONDS = 120


def _find() -> Path | None:
    found = (shutil.which(name) for name in NAMES)
    return next((Path(path) for path in found if path), None)


def chromium() -> Path | None:
    """The browser's path.  None when there is none and it cannot be installed here: the test skips and says so.

    Root on a system with apt-get gets the package `chromium` installed, once; nobody else's system is changed.
    """
    browser = _find()
    if browser is not None or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return browser
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode != 0:
            return None
    return _find()


def screenshot(page: Path, png: Path, width: int, height: int, dark: bool = False) -> None:
    """Write a picture of the top `width` x `height` CSS pixels of a page to `png`.  RuntimeError when none appears."""
    browser = chromium()
    if browser is None:
        raise RuntimeError("no chromium was found, and none could be installed; install the package `chromium`")
    with tempfile.TemporaryDirectory(prefix="browser-") as profile:
        # Headless windows are no narrower than about 500 pixels; a frame of the asked width is.
        frame = Path(profile) / "frame.html"
        frame.write_text(
            '<!DOCTYPE html><meta name="color-scheme" content="light dark"><style>body { margin: 0 }</style>'
            f'<iframe src="{page.resolve().as_uri()}" style="border: 0; display: block" width="{width}" '
            f'height="{height}" scrolling="no"></iframe>',
            encoding="utf-8",
        )
        command = [
            str(browser), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            "--force-device-scale-factor=1", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={profile}/user", f"--window-size={max(width, 500)},{height}", f"--screenshot={png}",
            frame.as_uri(),
        ]  # fmt: skip
        png.unlink(missing_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCREENSHOT_SECONDS)
    if not png.is_file():
        raise RuntimeError(f"{browser} wrote no picture of {page} (exit {done.returncode}): {done.stderr[-500:]}")
