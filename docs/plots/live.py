"""Takes pictures of a gateway that runs: its live page, light and dark, and ``tidegate top``.

Run: python docs/plots/live.py URL ADMIN_KEY FOLDER. It wants Playwright and the package chromium.
"""

# ruff: noqa: INP001 - a script
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

WIDTH, HEIGHT, SCALE = 1360, 1480, 1.5
COLOURS = 128
"""Enough for a page, and a third of the bytes."""
PATIENCE = 90_000
"""Milliseconds until an upstream is out."""


def shoot_page(url: str, key: str, folder: Path) -> None:
    """Write dashboard-light.png and dashboard-dark.png, once the page shows an upstream that is out."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        with playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser:
            pages = {scheme: open_page(browser, url, key, scheme) for scheme in ("light", "dark")}
            for page in pages.values():
                page.locator("tr[data-state=open]").first.wait_for()
            for scheme, page in pages.items():
                file = folder / f"dashboard-{scheme}.png"
                page.screenshot(path=file)
                Image.open(file).convert("RGB").quantize(COLOURS).save(file, optimize=True)


def open_page(browser: Browser, url: str, key: str, scheme: Literal["light", "dark"]) -> Page:
    """The live page, signed in."""
    size = ViewportSize(width=WIDTH, height=HEIGHT)
    page = browser.new_page(color_scheme=scheme, viewport=size, device_scale_factor=SCALE)
    page.set_default_timeout(PATIENCE)
    page.goto(f"{url}/dashboard")
    page.get_by_label("Admin key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    return page


def draw_top(url: str, key: str, folder: Path) -> None:
    """Write top.svg."""
    argv = ["-m", "gateway", "top", "--url", url, "--admin-key", key, "--picture", str(folder / "top.svg")]
    subprocess.run([sys.executable, *argv], check=True)  # noqa: S603 - of this repository


def main(url: str, key: str, folder: str) -> None:
    """Take all of them."""
    shoot_page(url, key, Path(folder))
    draw_top(url, key, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
