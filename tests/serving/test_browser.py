"""The page in a real browser: the Chromium of the system, without a window, at desktop and phone width."""

import re
import shutil

import pytest
from serving_support import app_of, running

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -e '.[browser]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
)

SIZES = {"desktop": {"width": 1200, "height": 900}, "phone": {"width": 375, "height": 740}}
PATIENCE_MS = 90_000
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
    with running(app_of(world[0], gallery, max_bytes=4 << 20, body_seconds=30.0)) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture(params=SIZES)
def page(request, chromium, address):
    """The page, which may not ask anybody else for anything, nor complain."""
    context = chromium.new_context(viewport=SIZES[request.param], permissions=["microphone"])
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints, elsewhere = [], []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: elsewhere.append(asked.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready=yes]")
    yield page
    own = (address, "blob:", "data:", "about:")
    assert [url for url in elsewhere if not url.startswith(own)] == []
    assert [each for each in complaints if "422" not in each and "sandboxed" not in each] == []
    context.close()


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_clip_is_dropped_and_its_verdict_read(world, page, tmp_path):
    page.set_input_files("#clip", world[1]["slow"][0])
    page.wait_for_selector("#verdict:not([hidden])")
    title = page.inner_text("#verdict-title")
    assert re.match(r"One system: |A family: |Unknown system|Too little", title)
    assert page.inner_text("#trace-status") == f"Heard: {title}"
    assert page.evaluate("document.activeElement.id") == "verdict"
    told = page.locator("#candidates tr").all_inner_texts()
    assert any(("slow" in each and "to 1" in each) or "1 to" in each for each in told)
    assert any("none of these systems" in each for each in told)
    before = page.inner_text("#candidates")
    page.fill("#prior-number", "5")
    page.wait_for_function("before => document.getElementById('candidates').innerText !== before", arg=before)
    assert "prior 5 %" in page.inner_text("#candidates")
    assert fits(page)
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 10_000
    page.click("#report")
    page.wait_for_selector("#report-frame:not([hidden])")
    assert page.get_attribute("#report-frame", "sandbox") == ""
    frame = page.frame_locator("#report-frame").locator("h1")
    assert world[1]["slow"][0].name in frame.inner_text()
    assert fits(page)


def test_what_is_no_audio_is_said_and_not_run(page, tmp_path):
    bad = tmp_path / "<img src=x onerror=alert(1)>.wav"
    bad.write_bytes(b"no audio")
    page.set_input_files("#clip", bad)
    page.wait_for_selector("#trace-problem:not([hidden])")
    assert page.inner_text("#trace-problem") == f"{bad.name}: not audio, or damaged (Format not recognised.)"
    assert page.locator("#trace-problem img").count() == 0
    assert page.locator("#verdict").is_hidden()


def test_a_system_is_enrolled_and_removed(world, page):
    page.fill("#enrol-name", "<b>fast</b>")
    page.set_input_files("#enrol-files", world[1]["fast"][:4])
    page.click("#enrol-form button")
    page.wait_for_selector("#gallery-problem:not([hidden])")
    assert page.inner_text("#gallery-problem") == "4 clips; give 5 to 50"
    page.set_input_files("#enrol-files", world[1]["fast"][:5])
    page.click("#enrol-form button")
    page.wait_for_function(
        "() => document.getElementById('gallery-status').textContent === '<b>fast</b> is enrolled.'"
    )
    assert page.locator("#systems tr").first.inner_text().split("\t")[0] == "<b>fast</b>"
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Remove <b>fast</b>").click()
    page.wait_for_function(
        "() => document.getElementById('gallery-status').textContent === '<b>fast</b> is removed.'"
    )
    assert page.locator("#systems tr").count() == 2


def test_two_clips_are_compared_by_keyboard(world, page):
    page.set_input_files("#clip-a", world[1]["slow"][0])
    page.set_input_files("#clip-b", world[1]["slow"][1])
    page.focus("#prior-same")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compared:not([hidden])")
    assert "likelihood ratio" in page.inner_text("#compared")
    assert fits(page)


def test_the_microphone_is_recorded(page):
    page.click("#record")
    page.wait_for_function("() => parseInt(document.getElementById('recording').lastChild?.textContent) >= 2")
    page.click("#record")
    page.wait_for_selector("#verdict:not([hidden])")
    assert page.inner_text("#verdict-file").startswith("recording.wav: ")


def test_what_the_server_cannot_read_is_decoded_here(page, tmp_path):
    """WebM with Opus, as browsers record it, made by this browser."""
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
    page.wait_for_selector("#verdict:not([hidden])")
    assert page.inner_text("#verdict-file").startswith("call.webm.wav: ")
