"""Draw the pictures of the documentation that no stage writes: the web page, a report, and the attribution of a clip.

Usage, after `make repro`, from the root of the repository. It needs the extras `serve`, `explain` and `browser`, and
Chromium:

    python docs/images/draw.py data/corpus/audio/test/ru_tts/ru/CLIP.flac ru_tts docs/images

The other pictures are copies of what commands write; the table in docs/figures.md names them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from makermark.examination.attribution.clip_explanation import Explanation, explain_clip
from makermark.foundation.figures import save_figure
from makermark.tracing import Tracer

PORT = 8765
START_SECONDS = 120
PAGE_SIZE = {"width": 830, "height": 1250}
REPORT_SIZE = {"width": 860, "height": 1220}
TICKS_KHZ = (0.3, 0.5, 1, 2, 3, 4, 6)
MIN_TICK_DISTANCE = 0.06  # of the height of the axis; of closer ticks only the higher one is shown


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path, help="a test clip")
    parser.add_argument("system", help="the system of the gallery that made it")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    arguments = parser.parse_args()
    explanation = explain_clip(
        Tracer.load(Path("models")), arguments.clip, system=arguments.system, longest_s=3.5
    )
    plot_explanation(arguments.out / "explain_clip.png", explanation)
    photograph_pages(arguments.clip, arguments.out)


def plot_explanation(path: Path, explanation: Explanation) -> None:
    """Plot the filterbank of a clip above its attribution."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, sharey=True)
    times, bands = explanation.times_s, np.arange(len(explanation.bands_hz))
    extent = (float(times[0]), float(times[-1]), -0.5, len(bands) - 0.5)
    settings: dict[str, Any] = {
        "aspect": "auto",
        "origin": "lower",
        "extent": extent,
        "interpolation": "nearest",
    }
    low, high = np.percentile(explanation.log_energies, (2, 100))
    upper.imshow(explanation.log_energies.T, cmap="Greys", vmin=low, vmax=high, **settings)
    limit = float(np.percentile(np.abs(explanation.attribution), 99.7))
    image = lower.imshow(explanation.attribution.T, cmap="PuOr_r", vmin=-limit, vmax=limit, **settings)
    positions = np.interp(1000 * np.array(TICKS_KHZ), explanation.bands_hz, bands)
    is_apart = np.append(np.diff(positions) >= MIN_TICK_DISTANCE * len(bands), True)
    labels = [f"{khz:g}" for khz, apart in zip(TICKS_KHZ, is_apart, strict=True) if apart]
    upper.set_yticks(positions[is_apart], labels, fontsize=9)
    upper.set_title("Filterbank of the clip: dark is loud", fontsize=10, loc="left")
    lower.set_title(
        f"Attribution: orange supports {explanation.system}, purple opposes it", fontsize=10, loc="left"
    )
    lower.set_xlabel("time, s", fontsize=10)
    for axes in (upper, lower):
        axes.set_ylabel("band, kHz", fontsize=10)
    figure.colorbar(image, ax=lower, pad=0.01).set_label("cosine per cell", fontsize=9)
    save_figure(figure, path)


def photograph_pages(clip: Path, out: Path) -> None:
    """Photograph the web page after it traced the clip, and the report that `makermark report` writes."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    command = [str(Path(sys.executable).with_name("makermark"))]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        named, report = Path(folder) / f"clip{clip.suffix}", Path(folder) / "report.html"
        shutil.copy(clip, named)
        subprocess.run([*command, "report", str(named), "--out", str(report)], check=True)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=REPORT_SIZE)
        page.goto(report.as_uri())
        page.screenshot(path=out / "report.png")
        server = subprocess.Popen([*command, "serve", "--port", str(PORT)])
        try:
            wait_for_server(f"http://127.0.0.1:{PORT}")
            page = browser.new_page(viewport=PAGE_SIZE)
            page.goto(f"http://127.0.0.1:{PORT}")
            page.wait_for_selector("body[data-ready=yes]")
            page.set_input_files("#clip", named)
            page.wait_for_selector("#conclusion:not([hidden])")
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=out / "serve.png")
        finally:
            server.terminate()
            server.wait(30)
        browser.close()


def wait_for_server(address: str) -> None:
    """Wait until the server answers; raises TimeoutError after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/api/health", timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(f"{address} did not answer in {START_SECONDS} s")


if __name__ == "__main__":
    main()
