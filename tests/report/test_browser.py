"""The pages in a real browser: they render, fetch nothing, sort, filter, print, and are readable on a phone, at night.

Run by `invoke test --browser`; .ci/browser installs Chromium and playwright. Each test leaves pictures in screenshots/.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rows import write_rows
from support.source_trees import COPIED, OTHER, disguised, tree
from support.verdict_folders import folder_of, full, told

from pipeline import paths
from pipeline.contest.ranking import leaderboard
from pipeline.contest.ranking import page as leaderboard_page
from pipeline.contest.similarity import fingerprints as similarity
from pipeline.contest.similarity import page as similarity_page
from pipeline.contest.verify import verdict_page
from pipeline.html import page as html_page
from pipeline.report import report
from pipeline.runs import timed as running
from pipeline.runs.request import Request

pytestmark = pytest.mark.browser

SHOTS = paths.ROOT / "screenshots"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PAGES = ("report", "reference", "board", "failed", "leaderboard", "similarity", "verdict", "verdict-of-evil")
EVIL = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title='taken over'\">"

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "there is no Chromium here: .ci/browser installs it"
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind, by name."""
    folder = tmp_path_factory.mktemp("pages")
    data = write_rows(folder / "rows.jsonl", 12)
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    lines[0]["message"][0]["content"] += EVIL
    lines[0]["answer"] = EVIL
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made: dict[str, Path] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_RUNS", str(folder / "runs"))
        asked = {"model": str(tiny), "dataset": str(data), "max_new_tokens": 8}
        runs = {
            "report": running.run(Request(**asked, repeat=2)).folder,
            "reference": running.run(Request(**asked, engine="reference")).folder,
        }
        runs["board"] = on_a_board(runs["report"], folder / "board")
        made["failed"] = report.make(
            str(failed(runs["report"], folder / "failed")), to=str(folder / "failed.html")
        ).path
        made |= {
            name: report.make(str(run), against=str(runs["reference"]), to=str(folder / f"{name}.html")).path
            for name, run in runs.items()
        }
    ranked = folder_of(
        folder / "verdicts",
        told("a1", "A team with a longer name than most have", 25.1, submitted_utc="2026-11-19T10:00:00Z"),
        told("a2", "A team with a longer name than most have", 9.75),
        told("b", "때론메모리도필요해", 19.8),
        told("c", "x" * 80, 100.0),
        told("d", EVIL, 9.8),
        told("e", "Late", 3.0, verdict="INVALID", reasons=["accuracy: 20 of 30 right; wanted: 23.85 or more"]),
        told("f", "Other set", 300.0, dataset="boolq-validation", prompts=500),
    )
    leaderboard_page.write(leaderboard.make(ranked), folder / "leaderboard")
    made["leaderboard"] = folder / "leaderboard" / "index.html"
    sources = [
        tree(folder / "blue", {"engine/tree.py": COPIED, "own.py": OTHER}),
        tree(folder / "green", {"forest.py": disguised(COPIED)}),
        tree(folder / "red", {"main.py": OTHER[:1500]}),
    ]
    made["similarity"] = folder / "similarity.html"
    similarity_page.write(similarity.compare(list(map(str, sources))), made["similarity"])
    for name, verdict in {
        "verdict": full("Blue team, of three"),
        "verdict-of-evil": full(f"{EVIL} {'x' * 390}"),
    }.items():
        made[name] = folder / f"{name}.html"
        html_page.write(made[name], verdict_page.html(verdict))
    return made


def failed(run: Path, to: Path) -> Path:
    """The same run as one that ended early with an error of several lines."""
    shutil.copytree(run, to)
    manifest = json.loads((to / "manifest.json").read_text())
    reason = f"R101 there is no room on the disk\n  where:    {'/long' * 40}\n  do:       make room; then --resume"
    manifest |= {"state": "failed", "failed": {"kind": "ResourceError", "reason": reason}}
    for key in ("elapsed_s", "phases_s", "stages_s", "score", "verdict", "telemetry"):
        manifest.pop(key, None)
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


def on_a_board(run: Path, to: Path) -> Path:
    """The same run with the telemetry of a board whose power rail was silent for a while."""
    shutil.copytree(run, to)
    manifest = json.loads((to / "manifest.json").read_text())
    manifest["telemetry"] |= {"missing": {"memory clock": "its clock needs debugfs and root"}, "energy_j": 812.5}
    manifest["telemetry"]["energy_j_per_prompt"] = 67.7
    manifest["verdict"] = {
        "state": "INVALID",
        "counts": True,
        "reasons": ["throttled: oc2_events counted 3"],
        "notes": [],
    }
    (to / "manifest.json").write_text(json.dumps(manifest))
    names = ["time_s", "VDD_GPU_SOC_W", "VDD_CPU_CV_W", "gpu-thermal_C", "tj-thermal_C", "gpu_MHz", "available_MiB"]
    rows = []
    for i in range(80):
        warm = 60 - 13 * math.exp(-i / 30)
        power = ("", "") if 20 < i < 35 else (f"{18 + 5 * math.sin(i / 6):.2f}", f"{5 + math.sin(i / 2):.2f}")
        rows.append([f"{i / 2}", *power, f"{warm:.2f}", f"{warm + 1:.2f}", "1300", f"{3000 + i}"])
    with open(to / "telemetry.csv", "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return to


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page by name; at the end of the test nothing may have been complained about or fetched."""
    said: list[str] = []
    fetched: list[str] = []
    contexts = []

    def open_(name: str, viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme, device_scale_factor=2))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(pages[name].as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    own = {path.as_uri() for path in pages.values()}
    assert said == []
    assert [url for url in fetched if url not in own and not url.startswith("data:")] == []


def shoot(page: Any, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True, scale="css")


def column(page: Any, table: str, number: int) -> list[str]:
    return page.locator(f"{table} tbody tr:visible > :nth-child({number})").all_inner_texts()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_renders_in_light_and_dark(opened: Open, name: str, scheme: str) -> None:
    page = opened(name, scheme=scheme)
    shoot(page, f"{name}-{scheme}")
    assert page.title() not in {"", "taken over"}
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.removeprefix("rgb(").rstrip(")").split(","))) > 380) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]


CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(ink), light(paper(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${walker.currentNode.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_paper(opened: Open, name: str, scheme: str) -> None:
    """4.5 : 1, as WCAG 2 asks of text."""
    page = opened(name, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(opened: Open, name: str, scheme: str) -> None:
    page = opened(name, viewport=PHONE, scheme=scheme)
    shoot(page, f"{name}-phone-{scheme}")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    wide = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.evaluate(f"{wide}.map((e) => e.outerHTML.slice(0, 80))") == []
    inside = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{inside}.length") == 0


@pytest.mark.parametrize("name", ["report", "board"])
def test_letters_in_plots_are_large_enough_on_a_phone(opened: Open, name: str) -> None:
    page = opened(name, viewport=PHONE)
    drawn = "parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b)"
    heights = page.evaluate(f"[...document.querySelectorAll('svg text')].map((e) => {drawn})")
    assert len(heights) > 20
    assert min(heights) >= 8.5


def test_the_table_sorts_by_numbers_and_by_words(opened: Open) -> None:
    page = opened("report")
    assert column(page, "#rows", 1) == [str(i) for i in range(12)]
    head = page.locator("#rows th").nth(0)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "#rows", 1) == [str(i) for i in reversed(range(12))]
    page.locator("#rows th").nth(3).locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    given = page.evaluate(
        "[...document.querySelectorAll('#rows tbody tr')].map((row) => row.cells[3].textContent.trim())"
    )
    assert len(set(given)) > 1
    collated = "(texts) => [...texts].sort(new Intl.Collator('en', { numeric: true }).compare)"
    assert given == page.evaluate(collated, given)


def test_the_table_sorts_by_the_keyboard_alone(opened: Open) -> None:
    page = opened("report")
    button = page.locator("#rows th button").first
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(page, "#rows", 1)[0] == "11"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "right"


def test_ranks_sort_by_time_however_it_is_written(opened: Open) -> None:
    page = opened("leaderboard")
    tables = page.locator("table.sortable")
    table = tables.nth(tables.count() - 1)
    table.locator("th", has_text="total").locator("button").click()
    times = [float(text.split()[0]) for text in table.locator("tbody tr > :nth-child(4)").all_inner_texts()]
    assert times == sorted(times)
    assert len(times) == 4


def test_a_mark_of_right_or_wrong_stays_on_one_line(opened: Open) -> None:
    page = opened("report")
    marks = page.locator("#rows .no, #rows .yes").evaluate_all(
        "(all) => all.map((each) => each.getClientRects().length)"
    )
    assert len(marks) == 12
    assert set(marks) == {1}


def test_a_failed_run_s_error_keeps_its_lines(opened: Open) -> None:
    assert opened("failed").locator("pre.error").inner_text().splitlines()[-1] == "  do:       make room; then --resume"


def test_rows_are_filtered_and_counted(opened: Open) -> None:
    page = opened("report")
    page.get_by_label("Filter").fill("taken over")
    assert column(page, "#rows", 1) == ["0"]
    assert page.locator("#rows-told").inner_text() == "1 of 12 rows"
    page.get_by_label("Filter").fill("")
    assert len(column(page, "#rows", 1)) == 12
    assert page.locator("#rows-told").inner_text() == "12 rows"


def test_a_wrong_answer_unfolds_to_its_prompt_by_the_keyboard(opened: Open) -> None:
    page = opened("report")
    fold = page.locator("details.row").first
    assert not fold.locator("pre").first.is_visible()
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert EVIL in fold.locator("pre").first.inner_text()
    assert page.title() != "taken over"


def test_a_script_that_gets_into_the_page_does_not_run(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    page_text = pages["report"].read_text(encoding="utf-8")
    forged = tmp_path / "forged.html"
    forged.write_text(page_text.replace("<main", f"{EVIL}<main", 1), encoding="utf-8")
    page = browser.new_page()
    page.goto(forged.as_uri())
    assert page.title() != "taken over"
    page.close()


def test_what_is_folded_is_printed(opened: Open, tmp_path: Path) -> None:
    page = opened("report")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.row pre").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator("details.row pre").first.is_visible()
    page.pdf(path=str(tmp_path / "report.pdf"))
    assert (tmp_path / "report.pdf").stat().st_size > 20_000


def test_it_can_be_read_without_scripts(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["report"].as_uri())
    assert page.locator("#rows tbody tr").count() == 12
    assert page.locator("svg").first.is_visible()
    context.close()
