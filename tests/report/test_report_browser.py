"""The page in headless Chromium: its script works, it loads nothing, and it fits a phone."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lnsgd.report.find import read_folders
from lnsgd.report.page import ROWS, render
from tests.figures import tiny
from tests.figures.handmade import handmade_sweep
from tests.report import report_folders

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# More than two pages of them.
CELLS = 2 * ROWS + 50


@pytest.fixture(scope="module")
def chrome() -> Iterator["Chrome"]:
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium, which is in the group dev")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Chromium and its driver: Debian's packages chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = program
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses its sandbox to root
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of a figure, a figure with an arm, a run, an analysis, a comparison and a long sweep."""
    folder = tmp_path_factory.mktemp("report")
    report_folders.figure(folder / "in" / "tiny")
    report_folders.run(folder / "in" / f"a-{report_folders.HOSTILE.replace('/', '∕')}")
    report_folders.analysis(folder / "in" / "analyzed", report_folders.RUN)
    report_folders.comparison(folder / "in" / "compared")
    tiny.run(tiny.computed_figure(), folder / "in" / "computed")
    values = [(i * 7919) % CELLS for i in range(CELLS)]  # each number once, in no order
    cells = [({"data.subset": v, "name": f"n{v}", "tie": v % 3}, {"x/y": v / 7 * 10.0 ** (v % 9)}) for v in values]
    cells[5] = (cells[5][0], {})
    handmade_sweep(folder / "in" / "swept", cells, {3: "failed", 4: "diverged"}, [(0, 1, "", "x", "", 1.0)])
    page = folder / "report.html"
    page.write_text(render(read_folders([folder / "in"]), datetime.now(UTC)), encoding="utf-8")
    return page.as_uri()


@pytest.fixture
def page(chrome: "Chrome", address: str) -> Iterator["Chrome"]:
    """Open the page, wide and light; a test that leaves an error in the console fails."""
    show(chrome, 1280, "light")
    for kind in ("browser", "performance"):
        chrome.get_log(kind)
    chrome.get(address)
    yield chrome
    assert chrome.get_log("browser") == []


def show(chrome: "Chrome", width: int, scheme: str, media: str = "screen") -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def column(page: "Chrome", name: str) -> list[str]:
    """Return a column of the sweep's table as shown."""
    script = """
        const table = document.querySelector('#swept table');
        const heads = [...table.tHead.querySelectorAll('button')];
        const at = heads.findIndex((head) => head.title === arguments[0]);
        return [...table.tBodies[0].rows].map((row) => row.cells[at].textContent);
    """
    return page.execute_script(script, name)


def header(page: "Chrome", name: str) -> Any:
    return page.find_element("css selector", f"#swept thead button[title='{name}']")


def order(page: "Chrome", name: str) -> str | None:
    return header(page, name).find_element("xpath", "..").get_attribute("aria-sort")


def test_nothing_is_requested(page: "Chrome", address: str) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert address in asked
    assert [url for url in asked if url != address and not url.startswith("data:image/png;base64,")] == []


def test_only_the_script_of_the_page_runs(page: "Chrome") -> None:
    page.execute_script(
        "const script = document.createElement('script'); script.text = 'window.intruded = true';"
        "document.body.append(script);"
        "const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);"
    )
    assert page.execute_script("return window.intruded") is None
    refusals = [entry["message"] for entry in page.get_log("browser")]
    assert len([text for text in refusals if "Content Security Policy" in text]) == len(refusals) == 2


def test_text_from_files_is_not_markup(page: "Chrome") -> None:
    assert page.execute_script("return document.scripts.length") == 1
    assert report_folders.HOSTILE in page.find_element("css selector", "#tiny-claim-2").text


def test_sorting_by_numbers(page: "Chrome") -> None:
    assert order(page, "data.subset") == "none"
    header(page, "data.subset").click()
    assert (order(page, "data.subset"), column(page, "data.subset")) == ("ascending", [str(i) for i in range(ROWS)])
    header(page, "data.subset").click()
    assert order(page, "data.subset") == "descending"
    assert column(page, "data.subset")[:3] == [str(CELLS - i) for i in (1, 2, 3)]


def test_sorting_by_numbers_of_all_sizes(page: "Chrome") -> None:
    """Some numbers are powers of ten, some have separators; a cell without a number is last in both directions."""
    page.execute_script(
        "const size = document.querySelector('#swept .size'); size.value = '0';size.dispatchEvent(new Event('change'));"
    )
    kept = [v for i, v in enumerate((i * 7919) % CELLS for i in range(CELLS)) if i != 5]
    (missing,) = {str(v) for v in range(CELLS)} - {str(v) for v in kept}
    by_value = [str(v) for v in sorted(kept, key=lambda v: v / 7 * 10.0 ** (v % 9))]
    header(page, "x/y").click()
    assert column(page, "data.subset") == [*by_value, missing]
    header(page, "x/y").click()
    assert column(page, "data.subset") == [*by_value[::-1], missing]
    assert column(page, "x/y")[-1] == ""


def test_sorting_keeps_the_order_of_ties(page: "Chrome") -> None:
    header(page, "data.subset").click()
    header(page, "tie").click()
    assert (order(page, "data.subset"), order(page, "tie")) == ("none", "ascending")
    assert column(page, "data.subset")[:4] == ["0", "3", "6", "9"]
    header(page, "tie").click()
    assert column(page, "data.subset")[:4] == ["2", "5", "8", "11"]


def test_sorting_by_text_and_from_the_keyboard(page: "Chrome") -> None:
    page.execute_script("arguments[0].focus()", header(page, "name"))
    page.switch_to.active_element.send_keys("\ue007")
    assert column(page, "name")[:3] == ["n0", "n1", "n2"]
    page.switch_to.active_element.send_keys(" ")
    assert column(page, "name")[0] == f"n{CELLS - 1}"


def test_values_with_errors_are_sorted_by_value(page: "Chrome") -> None:
    """The last checkpoint: loss 0.01, trace 109.00 ± 0.25, norm 3."""
    table = page.find_element("css selector", "#analyzed table")
    table.find_element("css selector", "thead button[title='value']").click()
    names = [row.text for row in table.find_elements("css selector", "tbody tr td:first-child")]
    assert names in (["loss", "norm", "hessian_trace"], ["hessian_trace", "norm", "loss"])
    assert len(page.find_elements("css selector", "#analyzed .plot svg polyline")) == 3
    assert len(page.find_elements("css selector", "#compared table")) == 3


def test_failed_cells_are_found(page: "Chrome") -> None:
    header(page, "status").click()
    assert column(page, "status")[:2] == ["diverged", "done"]
    header(page, "status").click()
    assert column(page, "status")[:2] == ["failed", "done"]


def test_pages_of_rows(page: "Chrome") -> None:
    block = page.find_element("css selector", "#swept .sortable")
    told, following = block.find_element("class name", "range"), block.find_element("class name", "next")
    assert (told.text, len(column(page, "tie"))) == (f"1–{ROWS} of {CELLS}", ROWS)
    header(page, "data.subset").click()
    following.click()
    following.click()
    assert told.text == f"{2 * ROWS + 1}–{CELLS} of {CELLS}"
    assert column(page, "data.subset") == [str(i) for i in range(2 * ROWS, CELLS)]
    assert not following.is_enabled()
    block.find_element("class name", "previous").click()
    assert column(page, "data.subset")[0] == str(ROWS)
    header(page, "data.subset").click()
    assert told.text.startswith("1–")  # what was sorted for is on the first page


def test_a_short_table_has_no_pages(page: "Chrome") -> None:
    assert page.find_elements("css selector", "#computed .pager:not([hidden])") == []


def test_fits_a_phone(page: "Chrome") -> None:
    show(page, 360, "light")
    page.execute_script("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    widths = "return [document.documentElement.scrollWidth, document.body.scrollWidth, window.innerWidth]"
    assert page.execute_script(widths) == [360, 360, 360]
    # The table scrolls by itself.
    areas = "const area = document.querySelector('#swept .scroll'); return [area.scrollWidth, area.clientWidth]"
    inside, outside = page.execute_script(areas)
    assert inside > outside


def test_values_of_measures_are_visible_on_a_phone(page: "Chrome") -> None:
    show(page, 360, "light")
    script = """
        return [...document.querySelectorAll('.stacked .scroll')].map((area) => {
            const edge = area.getBoundingClientRect();
            const cells = [...area.querySelectorAll('td.n')].map((cell) => cell.getBoundingClientRect());
            const seen = cells.filter((cell) => cell.width > 0 && cell.left >= edge.left && cell.right <= edge.right);
            return [cells.length, seen.length, area.scrollWidth - area.clientWidth];
        });
    """
    tables = page.execute_script(script)
    assert len(tables) >= 5  # of the run, the analysis and the comparison
    for cells, seen, hidden in tables:
        assert cells == seen > 0
        assert hidden == 0
    labels = page.execute_script(
        "return [...document.querySelector('#compared .stacked tbody tr').cells].slice(-3)"
        ".map((cell) => getComputedStyle(cell, '::before').content)"
    )
    assert labels == ['"A "', '"B "', '"B − A "']


@pytest.mark.parametrize("width", [360, 1280])
def test_results_are_in_the_overview(page: "Chrome", width: int) -> None:
    show(page, width, "light")
    results = {
        row.find_element("tag name", "a").text: " ".join(row.find_element("tag name", "td").text.split())
        for row in page.find_elements("css selector", ".overview tbody tr")
    }
    assert results["analyzed"] == "3 networks, 9 numbers trace 10.00 ± 0.25 → 109.00 ± 0.25"
    assert results["compared"] == "A against B trace 2 → 5 (+150 %)"


def test_contents_on_a_phone_close_after_a_link(page: "Chrome") -> None:
    assert page.find_element("id", "contents").get_attribute("open")
    show(page, 360, "light")
    page.refresh()
    assert not page.find_element("id", "contents").get_attribute("open")
    page.find_element("css selector", "#contents summary").click()
    page.find_element("css selector", "#contents a[href='#swept']").click()
    assert not page.find_element("id", "contents").get_attribute("open")
    assert page.execute_script("return document.querySelector('#swept').getBoundingClientRect().top") < 200


def colors(page: "Chrome") -> tuple[float, float]:
    """Return the brightness of background and text, from 0 to 1."""
    script = """
        const style = getComputedStyle(document.body);
        return [style.backgroundColor, style.color].map((color) => color.match(/[\\d.]+/g).map(Number));
    """
    found = page.execute_script(script)
    # Nothing drawn is paper.
    return tuple(1.0 if len(color) == 4 and color[3] == 0 else sum(color[:3]) / 765 for color in found)


def test_light_dark_and_print(page: "Chrome") -> None:
    background, text = colors(page)
    assert background > 0.9
    assert text < 0.2
    show(page, 1280, "dark")
    background, text = colors(page)
    assert background < 0.2
    assert text > 0.8
    show(page, 1280, "dark", "print")
    background, text = colors(page)
    assert background > 0.9
    assert text < 0.2


def test_print_shows_results_and_leaves_out_configs(page: "Chrome") -> None:
    show(page, 1280, "light", "print")
    part = page.find_element("id", "computed-1")
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert part.find_element("tag name", "table").is_displayed()
    assert not page.find_element("css selector", "#computed .text").is_displayed()
    assert not page.find_element("id", "contents").is_displayed()
    page.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert not part.get_attribute("open")
    assert len(page.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000


def test_pictures_in_full_size(page: "Chrome") -> None:
    dialog = page.find_element("id", "full-size")
    assert not dialog.is_displayed()
    page.find_element("css selector", "#tiny .enlarge").click()
    assert dialog.is_displayed()
    picture = dialog.find_element("tag name", "img")
    assert (picture.get_property("naturalWidth"), picture.get_property("offsetWidth")) == (60, 60)
    dialog.find_element("tag name", "button").click()
    assert not dialog.is_displayed()


def test_link_opens_its_collapsed_target(page: "Chrome") -> None:
    part = page.find_element("id", "computed-1")
    assert not part.get_attribute("open")
    page.execute_script("location.hash = 'computed-1'")
    page.execute_async_script("setTimeout(arguments[0])")
    assert part.get_attribute("open")
