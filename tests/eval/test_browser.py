"""The pages in a real browser: no error, pictures shown, tables that sort, in light and dark, on phone and paper."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval import commands
from pipeline.store import VideoStore
from train.commands import preview

PHONE = 400


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium. Tests skip where it is not installed; where REQUIRE_BROWSER=1 promises it they fail."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver) and os.environ.get("REQUIRE_BROWSER") != "1":
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver); REQUIRE_BROWSER=1 insists")
    from selenium import webdriver

    assert program and driver, "REQUIRE_BROWSER=1, and chromium or chromedriver is not installed"
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-component-update",
                 "disable-background-networking", "disable-sync", "disable-dev-shm-usage",
                 f"user-data-dir={tmp_path_factory.mktemp('profile')}"):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def pages(finished_evaluation: Path, store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report, a comparison, a page of a search and one of what the network sees."""
    folder = tmp_path_factory.mktemp("pages")
    run = shutil.copytree(finished_evaluation, folder / "run")
    # A name that no browser breaks by itself.
    video = shutil.copy(Path(store.root).parent / "videos" / f"{store.videos[0]}.mp4", folder / f"{'long' * 20}.mp4")
    commands.search(video, run, str(store.root), neighbours=3, out=folder / "search.html", reader="opencv", threads=1)
    other = shutil.copytree(run, folder / "other")
    (other / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("seed: 0", "seed: 1"))
    commands.report(runs=[run, other], store=str(store.root), out=folder / "comparison.html")
    preview("infonce", str(store.root), str(run / "recipe.yaml"), "flow", videos=1, out=folder / "preview.html")
    return {
        "report": run / "report.html",
        "preview": folder / "preview.html",
        "comparison": folder / "comparison.html",
        "search": folder / "search.html",
    }


def show(browser: Any, page: Path, width: int = 1280, **media: str) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "media": media.pop("media", "screen"),
        "features": [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()],
    })  # fmt: skip
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


@pytest.mark.parametrize("name", ["report", "comparison", "search", "preview"])
def test_a_page_has_no_error_and_all_its_pictures(browser: Any, pages: dict[str, Path], name: str) -> None:
    browser.get_log("browser")
    show(browser, pages[name])
    decoded = browser.execute_async_script(
        "const done = arguments[0]; Promise.all([...document.images].map((image) => image.decode()))"
        ".then(() => done([...document.images].map((image) => image.naturalWidth)), (error) => done(String(error)));"
    )
    assert isinstance(decoded, list) and all(width > 0 for width in decoded)
    assert decoded
    assert browser.get_log("browser") == []
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').filter((r) => !r.name.startsWith('data:'))"
        )
        == []
    )


@pytest.mark.parametrize("name", ["report", "comparison", "search", "preview"])
def test_a_page_fits_a_phone_and_is_dark_where_that_is_wished(browser: Any, pages: dict[str, Path], name: str) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    show(browser, pages[name], PHONE, prefers_color_scheme="light")
    assert min(browser.execute_script(ground)) > 200
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE
    show(browser, pages[name], PHONE, prefers_color_scheme="dark")
    assert max(browser.execute_script(ground)) < 60


def test_on_paper_pictures_stand_still_and_what_is_for_the_screen_is_gone(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages["report"], media="print")
    film = "getComputedStyle(document.querySelector('.film img'))"
    assert browser.execute_script(f"return {film}.animationName") == "none"
    assert browser.execute_script("return getComputedStyle(document.querySelector('.downloads')).display") == "none"
    show(browser, pages["preview"], PHONE, media="print")
    film = "getComputedStyle(document.querySelector('.film'))"
    assert browser.execute_script(f"return {film}.printColorAdjust") == "exact"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE
    show(browser, pages["report"])
    browser.execute_cdp_cmd("Page.printToPDF", {})
    folded = "return [...document.querySelectorAll('details')].filter((one) => !one.open).length"
    assert browser.execute_script(folded) == 0


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_tables_sort_by_a_click_and_guessing_stays_last(browser: Any, pages: dict[str, Path], name: str) -> None:
    show(browser, pages[name])
    heads = {
        table: [cell.text for cell in table.find_elements("css selector", "th")]
        for table in browser.find_elements("css selector", "table.sortable")
    }
    table, head = next((table, head) for table, head in heads.items() if "R@1" in head)
    column = head.index("R@1")

    def cells(place: int) -> list[str]:
        return [
            row.find_elements("tag name", "td")[place].text for row in table.find_elements("css selector", "tbody tr")
        ]

    def number(text: str) -> float:
        return float(text.split(" ")[0])

    before = [number(text) for text in cells(column)]
    button = table.find_elements("css selector", "th button")[column]
    for falling in (True, False):
        button.click()
        values = [number(text) for text in cells(column)]
        assert values == [*sorted(before[:-1], reverse=falling), before[-1]]
        assert "guessing" in [
            text for row in table.find_elements("css selector", "tbody tr:last-child") for text in row.text.split()
        ]
    names = table.find_elements("css selector", "th button")[0]
    names.click()
    assert cells(0)[:-1] == sorted(cells(0)[:-1], reverse=True)


def test_a_point_of_the_map_shows_its_frame(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver import ActionChains

    show(browser, pages["report"])
    tip = browser.find_element("css selector", ".map .tip")
    assert not tip.is_displayed()
    points = browser.find_elements("css selector", ".map circle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[2])
    ActionChains(browser).move_to_element(points[2]).perform()
    assert tip.is_displayed()
    assert tip.find_element("tag name", "span").text == points[2].find_element("tag name", "title").get_attribute(
        "textContent"
    )
    moved = tip.find_element("tag name", "img").get_attribute("style")
    assert "translate(-112px, 0px)" in moved  # the third picture of the first line
