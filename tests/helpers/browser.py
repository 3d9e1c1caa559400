"""A page in headless Chromium: run a script in it and read what it found. Needs no driver: Chromium prints the page."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

HELPERS = """
const numbers = () => [...document.querySelectorAll("#list details.latent")].map((d) => Number(d.id.slice(7)));
const count = () => document.getElementById("count").textContent;
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const choose = (id, value) => {
  const field = document.querySelector(id);
  field.value = value;
  field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input", {bubbles: true}));
};
"""

PROBE = """<script>addEventListener("load", async () => {
let found;
try { found = {value: await (async () => {%s})()}; } catch (error) { found = {error: String(error.stack || error)}; }
document.body.innerHTML = "<pre id=probe></pre>";
document.head.querySelectorAll("style").forEach((style) => style.remove());
document.getElementById("probe").textContent = JSON.stringify(found);
});</script>"""


def run_in_page(page: Path, script: str, folder: Path, *options: str, library: str = "") -> Any:
    """What the body `script` of an async function returns in the page, loaded; `library`: JavaScript to load before.

    The page's policy would refuse these scripts, so a copy of the page without it, in `folder`, is opened.
    """
    assert CHROMIUM is not None
    text = page.read_text(encoding="utf-8")
    text, policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert policies == 1
    copy = folder / f"probe-{page.name}"
    extra = f"<script>{library}</script>" if library else ""
    copy.write_text(text.replace("</body>", f"{extra}{PROBE % script}</body>"), encoding="utf-8")
    dumped = chromium(copy, folder, "--dump-dom", "--virtual-time-budget=20000", *options)
    found = re.search(r'<pre id="probe">(.*?)</pre>', dumped, re.DOTALL)
    assert found, dumped[-2000:]
    answer = json.loads(html.unescape(found[1]))
    assert "error" not in answer, answer["error"]
    return answer.get("value")


def chromium(page: Path, folder: Path, *options: str) -> str:
    """What headless Chromium prints for a page, with a profile of its own and no network."""
    command = [CHROMIUM, "--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder / 'profile'}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses root otherwise, as in containers
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def axe() -> Path | None:
    """axe-core's script: where AXE_CORE says, or where `make test` puts it."""
    places = [Path(sys.prefix) / "axe" / "node_modules" / "axe-core" / "axe.min.js"]
    if "AXE_CORE" in os.environ:
        places.insert(0, Path(os.environ["AXE_CORE"]))
    return next((place for place in places if place.is_file()), None)


def ask(page: Path, folder: Path, script: str, *options: str, **more: Any) -> Any:
    """`run_in_page` for a script that uses numbers, count, press and choose."""
    return run_in_page(page, HELPERS + script, folder, *options, **more)
