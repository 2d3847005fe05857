"""The page in a real browser: drop, look, ask, stream, stop, ask again, errors, and whoever cannot see it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.serve.conftest import Running, serving, write_film

from llava_next_video import VideoAssistant

pytestmark = pytest.mark.slow

PICTURE = Path(__file__).parent.parent.parent / "docs" / "images" / "page.png"
AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checker of accessible pages, from npm; LNV_AXE may name its file."""
    if told := os.environ.get("LNV_AXE"):
        return Path(told).read_text()
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, which fetches axe-core")
    got = subprocess.run(["npm", "pack", AXE], cwd=folder, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"axe-core could not be fetched: {got.stderr.splitlines()[-1:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1180, "height": 780}, reduced_motion="reduce")
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.url)
    yield page
    context.close()
    assert not [line for line in said if "400" not in line and "429" not in line], said


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A clip that nobody has seen."""
    path = write_film(tmp_path, 4)
    return path.rename(tmp_path / "scene.mp4")


def drop(page: Page, path: Path) -> None:
    """Let a file fall on the page, as a mouse does."""
    data = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([data, name]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            const type = name.endsWith(".mp4") ? "video/mp4" : "image/png";
            transfer.items.add(new File([bytes], name, {type}));
            return transfer;
        }""",
        [data, path.name],
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")


def answered(page: Page, number: int) -> tuple[str, str]:
    """The n-th answer and the line below it."""
    article = page.locator("#log article.assistant").nth(number)
    article.locator("footer").wait_for()
    return article.locator("div").inner_text(), article.locator("footer").inner_text()


def test_a_dropped_clip_is_shown_asked_about_and_asked_again(page: Page, film: Path) -> None:
    drop(page, film)
    page.locator("#strip li").nth(7).wait_for()
    assert re.match(r"8 frames of \d+, 128 visual tokens", page.locator("#seen").inner_text())
    assert re.match(r"Frame at 0\.00 s", page.locator("#strip button").first.get_attribute("aria-label"))
    ask(page, "What shape is in the video?")
    text, cost = answered(page, 0)
    assert text
    assert "a second" in cost
    ask(page, "What colour is it?")
    _, cost = answered(page, 1)
    share = int(re.search(r"(\d+) % of the prompt was cached", cost).group(1))
    assert share > 60
    shot = Image.open(io.BytesIO(page.screenshot())).convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
    if "LNV_PICTURES" in os.environ:  # the README's picture; times differ from run to run
        PICTURE.parent.mkdir(exist_ok=True)
        shot.save(PICTURE, optimize=True)
    assert shot.size == (1180, 780)
    assert PICTURE.stat().st_size < 200_000


def test_fewer_frames_are_looked_at_when_asked_for(page: Page, film: Path) -> None:
    page.set_input_files("#file", film)
    page.locator("#strip li").nth(7).wait_for()
    page.get_by_label("Number of frames").fill("3")
    page.keyboard.press("Tab")
    expect(page.locator("#strip li")).to_have_count(3)
    page.get_by_label("frames a second", exact=True).check()
    expect(page.locator("#strip li")).not_to_have_count(3)


def test_an_answer_streams_and_stops(page: Page, server: Running, film: Path) -> None:
    page.set_input_files("#file", film)
    page.locator("#strip li").nth(7).wait_for()
    page.route(
        "**/v1/chat/completions",
        lambda route: route.continue_(
            post_data=route.request.post_data.replace('"stream":true', '"stream":true,"ignore_eos":true')
        ),
    )
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Longest answer, tokens").fill("1500")
    # The answer is over within a second: the page itself presses the button as soon as there is some text.
    page.evaluate(
        """() => new MutationObserver((_, observer) => {
            const said = document.querySelector('#log .assistant div');
            if (said && said.textContent.length > 20) {
                observer.disconnect();
                document.querySelector('#stop').click();
            }
        }).observe(document.querySelector('#log'), {childList: true, subtree: true, characterData: true})"""
    )
    ask(page, "Describe it.")
    text, cost = answered(page, 0)
    assert cost == "stopped"
    assert len(text) > 20
    assert server.rests_within(1.0)
    assert page.get_by_role("button", name="Ask", exact=True).is_visible()


def test_an_error_is_told_and_the_question_is_kept(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypmp42 and then nothing")
    drop(page, broken)
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text()
    ask(page, "What is it?")
    page.get_by_role("alert").wait_for()
    assert page.locator("#log article").count() == 0
    expect(page.locator("#question")).to_have_value("What is it?")


def test_a_picture_can_be_asked_about(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "red.png")
    drop(page, tmp_path / "red.png")
    page.locator("#strip li").first.wait_for()
    ask(page, "What colour?")
    assert answered(page, 0)[0]


def test_the_same_question_is_given_as_code_that_runs(page: Page, film: Path, server: Running) -> None:
    page.set_input_files("#file", film)
    page.locator("#strip li").nth(7).wait_for()
    page.get_by_label("Question", exact=True).fill("What's in it?")
    page.get_by_role("button", name="Copy as code").click()
    curl, python = (page.locator(name).inner_text() for name in ("#curl", "#python"))
    page.get_by_role("button", name="Close").click()
    told = subprocess.run(["bash", "-c", curl], cwd=film.parent, capture_output=True, text=True, check=True)
    said = subprocess.run(
        [sys.executable, "-c", python], cwd=film.parent, capture_output=True, text=True, check=True
    )
    assert f'"content":{json.dumps(said.stdout.strip())}' in told.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1180, 390])
def test_no_serious_finding_of_axe_and_no_sideways_scrolling(
    browser: Browser, server: Running, film: Path, axe: str, scheme: str, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        bypass_csp=True,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(server.url)
    page.set_input_files("#file", film)
    page.locator("#strip li").nth(7).wait_for()
    ask(page, "What is in the video?")
    answered(page, 0)
    page.get_by_text("Settings", exact=True).click()
    page.add_script_tag(content=axe)
    findings = page.evaluate("async () => (await axe.run()).violations")
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.goto(f"{server.url}/docs")
    page.locator("section").first.wait_for()
    page.add_script_tag(content=axe)
    findings += page.evaluate("async () => (await axe.run()).violations")
    context.close()
    bad = [
        (one["id"], one["nodes"][0]["html"]) for one in findings if one["impact"] in ("serious", "critical")
    ]
    assert bad == []
    assert wide <= 0


def test_the_keyboard_reaches_everything_in_order(page: Page) -> None:
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    wanted = ["file", "frames", "question", "send"]
    assert [name for name in reached if name in wanted][:4] == wanted


def test_nothing_is_loaded_from_elsewhere(browser: Browser, server: Running) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ("/", "/docs"):
        page.goto(server.url + path, wait_until="networkidle")
    context.close()
    assert len(asked) >= 6
    assert all(url.startswith((server.url, "data:")) for url in asked), asked


def test_a_server_with_keys_says_so_and_takes_one(
    browser: Browser, load: Callable[[], VideoAssistant]
) -> None:
    with serving(load(), api_keys=("open sesame",)) as running:
        context = browser.new_context()
        page = context.new_page()
        page.goto(running.url)
        page.get_by_role("alert").filter(has_text="API key").wait_for()
        page.get_by_text("Settings", exact=True).click()
        page.get_by_label("API key").fill("open sesame")
        page.keyboard.press("Tab")
        expect(page.locator("#model")).to_have_text("llava-next-video")
        expect(page.get_by_role("alert")).to_have_count(0)
        context.close()
