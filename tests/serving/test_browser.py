"""The page in the system's Chromium, headless, at desktop and phone width."""

import hashlib
import math
import re
import shutil

import numpy as np
import pytest
import soundfile
from serving_support import make_app, running_server

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -e '.[browser]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
)

SIZES = {"desktop": {"width": 1200, "height": 900}, "phone": {"width": 375, "height": 740}}
TIMEOUT_MS = 90_000
MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *MICROPHONE])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(world, tmp_path_factory):
    gallery = tmp_path_factory.mktemp("browser") / "gallery.arrow"
    app = make_app(world[0], gallery, max_bytes=4 << 20, body_timeout_s=30.0, max_seconds=300)
    with running_server(app) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture(params=SIZES)
def page(request, chromium, address):
    """The page; at the end, it must have sent no request to another server and logged no error."""
    context = chromium.new_context(viewport=SIZES[request.param], permissions=["microphone"])
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    errors, urls = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: urls.append(request.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready=yes]")
    yield page
    own = (address, "blob:", "data:", "about:")
    assert [url for url in urls if not url.startswith(own)] == []
    assert [error for error in errors if "422" not in error and "sandboxed" not in error] == []
    context.close()


def fits_width(page):
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_page_traces_a_clip_and_shows_its_report(world, page, tmp_path):
    page.set_input_files("#clip", world[1]["slow"][0])
    page.wait_for_selector("#conclusion:not([hidden])")
    title = page.inner_text("#conclusion-title")
    assert re.match(r"One system: |A family: |Unknown system|Too little", title)
    assert page.inner_text("#trace-status") == f"Result: {title}"
    assert page.evaluate("document.activeElement.id") == "conclusion"
    rows = page.locator("#candidates tr").all_inner_texts()
    assert any(("slow" in row and "to 1" in row) or "1 to" in row for row in rows)
    assert any("none of these systems" in row for row in rows)
    before = page.inner_text("#candidates")
    page.fill("#prior-number", "5")
    page.wait_for_function("before => document.getElementById('candidates').innerText !== before", arg=before)
    named = not page.inner_text("#conclusion-title").startswith("Unknown system")
    assert ("prior 5 %" in page.inner_text("#candidates")) == named
    assert fits_width(page)
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 10_000
    page.click("#report")
    page.wait_for_selector("#report-frame:not([hidden])")
    assert page.get_attribute("#report-frame", "sandbox") == ""
    frame = page.frame_locator("#report-frame").locator("h1")
    assert world[1]["slow"][0].name in frame.inner_text()
    assert fits_width(page)


def test_page_shows_the_error_of_a_file_that_is_not_audio_as_text(page, tmp_path):
    bad = tmp_path / "<img src=x onerror=alert(1)>.wav"
    bad.write_bytes(b"no audio")
    page.set_input_files("#clip", bad)
    page.wait_for_selector("#trace-problem:not([hidden])")
    assert page.inner_text("#trace-problem").startswith(f"{bad.name}: not audio, or damaged (libsndfile ")
    assert page.locator("#trace-problem img").count() == 0
    assert page.locator("#conclusion").is_hidden()


def test_page_enrolls_and_removes_a_system(world, page):
    page.fill("#enroll-name", "<b>fast</b>")
    page.set_input_files("#enroll-files", world[1]["fast"][:4])
    page.click("#enroll-form button")
    page.wait_for_selector("#gallery-problem:not([hidden])")
    assert page.inner_text("#gallery-problem") == "4 clips; enrolment needs 5 to 50."
    page.set_input_files("#enroll-files", world[1]["fast"][:5])
    page.click("#enroll-form button")
    page.wait_for_function(
        "() => document.getElementById('gallery-status').textContent === '<b>fast</b> was enrolled.'"
    )
    assert page.locator("#systems tr").first.inner_text().split("\t")[0] == "<b>fast</b>"
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Remove <b>fast</b>").click()
    page.wait_for_function(
        "() => document.getElementById('gallery-status').textContent === '<b>fast</b> was removed.'"
    )
    assert page.locator("#systems tr").count() == 2


def test_page_compares_two_clips_by_keyboard(world, page):
    page.set_input_files("#clip-a", world[1]["slow"][0])
    page.set_input_files("#clip-b", world[1]["slow"][1])
    page.focus("#prior-same")
    page.keyboard.press("Enter")
    page.wait_for_selector("#comparison:not([hidden])")
    text = page.inner_text("#comparison")
    assert "likelihood ratio" in text
    for path in world[1]["slow"][:2]:
        assert f"{path.name}, " in text
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert fits_width(page)


def test_page_hides_the_comparison_that_a_failed_one_would_replace(world, page, tmp_path):
    page.set_input_files("#clip-a", world[1]["slow"][0])
    page.set_input_files("#clip-b", world[1]["slow"][1])
    page.click("#compare-form button")
    page.wait_for_selector("#comparison:not([hidden])")
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    page.set_input_files("#clip-b", tmp_path / "bad.wav")
    page.click("#compare-form button")
    page.wait_for_selector("#compare-problem:not([hidden])")
    assert page.locator("#comparison").is_hidden()


def test_strip_shows_all_windows_of_a_long_clip_to_scale(world, page, tmp_path):
    samples, rate_hz = soundfile.read(world[1]["slow"][0])
    long = np.tile(samples, math.ceil(240 * rate_hz / len(samples)))
    soundfile.write(tmp_path / "long.wav", long, rate_hz, subtype="ULAW")
    page.set_input_files("#clip", tmp_path / "long.wav")
    page.wait_for_selector("#over-time:not([hidden])")
    strip = page.locator("#strip").bounding_box()
    boxes = page.locator("#strip button").evaluate_all(
        "(blocks) => blocks.map((block) => block.getBoundingClientRect()).map(({ left, right }) => [left, right])"
    )
    assert len(boxes) > 200
    assert len(boxes) == page.locator("#windows tr").count()
    assert all(strip["x"] - 1 <= left < right <= strip["x"] + strip["width"] + 1 for left, right in boxes)
    assert boxes[-1][1] == pytest.approx(strip["x"] + strip["width"], abs=0.02 * strip["width"])
    middle = len(boxes) // 2
    assert boxes[middle][0] == pytest.approx(strip["x"] + strip["width"] / 2, abs=0.02 * strip["width"])
    assert "windows" in page.locator("#legend li").first.inner_text()
    page.locator("#strip button").nth(middle).dispatch_event("click")
    span = page.locator("#windows tr").nth(middle).locator("td").first.text_content()
    start = float(span.split()[0])
    assert page.evaluate("document.getElementById('player').currentTime") == pytest.approx(start, abs=1.5)
    assert fits_width(page)


def test_page_records_the_microphone(page):
    page.click("#record")
    page.wait_for_function("() => parseInt(document.getElementById('recording').lastChild?.textContent) >= 2")
    page.click("#record")
    page.wait_for_selector("#conclusion:not([hidden])")
    assert page.inner_text("#conclusion-file").startswith("recording.wav: ")


def test_server_decodes_webm_and_shows_the_checksum_of_the_original(page, tmp_path):
    """The clip is WebM with Opus, recorded by the browser itself."""
    page.evaluate(
        """async () => {
          const context = new AudioContext(), tone = new OscillatorNode(context, { frequency: 220 });
          const to = new MediaStreamAudioDestinationNode(context);
          tone.connect(to); tone.start();
          const recorder = new MediaRecorder(to.stream, { mimeType: "audio/webm" }), parts = [];
          recorder.ondataavailable = ({ data }) => parts.push(data);
          const ended = new Promise((done) => { recorder.onstop = done; });
          recorder.start(); await new Promise((done) => setTimeout(done, 1500)); recorder.stop(); await ended;
          const files = new DataTransfer();
          files.items.add(new File(parts, "call.webm", { type: "audio/webm" }));
          const input = document.getElementById("clip");
          input.files = files.files;
          input.dispatchEvent(new Event("change"));
        }"""
    )
    page.wait_for_selector("#conclusion:not([hidden])")
    assert page.inner_text("#conclusion-file").startswith("call.webm: ")
    details = page.inner_text("#file-details")
    assert re.search(r"SHA-256 [0-9a-f]{64}\nDecoded by FFmpeg \(PyAV .*\), matroska,webm opus\.", details)
