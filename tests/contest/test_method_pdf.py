"""What Markdown becomes on a page: every kind of block in its order, and no mark of it left."""

from __future__ import annotations

import contextlib
import re

import pytest
from reportlab.platypus import Flowable, Image, Indenter, KeepTogether, Paragraph, SimpleDocTemplate, Table

from pipeline.contest.archive import pdf_text
from pipeline.contest.submit import method_pdf
from pipeline.contest.verify import run_figures

DOCUMENT = """\
# Level *one* of `code`

Words with **bold**, *slanted*, ***both***, `x < y`, [a link](https://example.org/?a=1&b=2), [a file](docs/x.md).
The second line & <b>no HTML</b>, 때론메모리도필요해, ![a picture](none.png) among words, \\*escaped\\*.

## Level two

### Level three

#### Level four

> A quote of **two**
> lines.
>
> > A quote in it.

* star one
  * star inner
    * star deepest
* star two

  A second paragraph.

- dash

3. third
4. fourth
   1. inner first
      * star in a number

| name | count |
| --- | ---: |
| **cell** | 22 |
| a \\| b | *z* |

```python
def f(x):  # * no list, no **bold**
    return x
```

    indented

Below a line
------------

***

The end.
"""

LINES = [
    "Level one of code",
    "Words with bold, slanted, both, x < y, a link, a file. The second line & <b>no HTML</b>, 때론메모리도필요해, "
    "a picture among words, *escaped*.",
    "Level two",
    "Level three",
    "Level four",
    "A quote of two lines.",
    "A quote in it.",
    "• star one",
    "• star inner",
    "• star deepest",
    "• star two",
    "A second paragraph.",
    "• dash",
    "3. third",
    "4. fourth",
    "1. inner first",
    "• star in a number",
    "name / count",
    "cell / 22",
    "a | b / z",
    "def f(x): # * no list, no **bold** return x",
    "indented",
    "Below a line",
    "The end.",
]


def words(paragraph: Paragraph) -> str:
    mark = paragraph.bulletText
    return f"{mark} {paragraph.getPlainText()}" if mark else re.sub(r"\s+", " ", paragraph.getPlainText())


def lines(flowables: list[Flowable]) -> list[str]:
    """The words of every block; a row of a table as one line."""
    found = []
    for each in flowables:
        if isinstance(each, Paragraph):  # also code
            found.append(words(each))
        elif isinstance(each, Table):
            found += [" / ".join(words(cell) for cell in row) for row in each._cellvalues]
        elif isinstance(each, KeepTogether):
            found += lines(each._content)
    return found


def depths(flowables: list[Flowable]) -> dict[str, float]:
    """Points to the right of the margin, of every paragraph."""
    at, found = 0.0, {}
    for each in flowables:
        if isinstance(each, Indenter):
            at += each.left
        elif isinstance(each, Paragraph):
            found[words(each)] = at
    assert at == 0
    return found


def test_every_block_stands_there_in_order_and_no_mark_is_left() -> None:
    assert lines(method_pdf.flowables(DOCUMENT, {})) == LINES


def test_the_organiser_reads_the_same_text_back() -> None:
    from pipeline.contest.submit import pictures

    png = pictures.cost({"rows": [1, 2], "elapsed_s": [0.1, 0.2]})
    long = "\n\nIt took **12.34 s**, ﬁ é ß 한국어 \\\\ ( ) %." * 60
    pdf = method_pdf.make(DOCUMENT + "![one](a.png)" + long, {"a.png": png}, "Blüe: method")
    first, *others = pdf_text.pages(pdf)
    assert first[:2] == ["1", "Blüe: method"]
    cells = " ".join(LINES).replace(" / ", " ")
    assert " ".join(first[2:]).replace("`", "").startswith(cells)
    assert [page[:2] for page in others] == [[str(n), "Blüe: method"] for n in range(2, len(others) + 2)]
    assert {*others[-1][2:]} == {"It took 12.34 s, ﬁ é ß 한국어 \\ ( ) %."}


def test_a_changed_byte_of_a_paper_is_read_as_it_is_or_not_at_all() -> None:
    """And ends in no error of ours."""
    pdf = method_pdf.make("# Blue: how\n\nIt took 12.34 s.", {}, "Blue: method")
    for at in [*range(0, 400), *range(len(pdf) - 1200, len(pdf))]:
        with contextlib.suppress(pdf_text.Unreadable):
            pdf_text.pages(pdf[:at] + bytes([pdf[at] ^ 1]) + pdf[at + 1 :])
    for end in (0, 10, len(pdf) // 2, len(pdf) - 1):
        with pytest.raises(pdf_text.Unreadable):
            pdf_text.pages(pdf[:end])


def test_a_table_is_as_wide_as_the_words_above_it() -> None:
    (table,) = [each for each in method_pdf.flowables(DOCUMENT, {}) if isinstance(each, Table)]
    page = SimpleDocTemplate("none", leftMargin=method_pdf.MARGIN, rightMargin=method_pdf.MARGIN)
    frame_padding = 2 * 6  # reportlab's own, in which paragraphs are set
    assert sum(table._colWidths) <= method_pdf.A4[0] - page.leftMargin - page.rightMargin - frame_padding + 1e-6


def test_what_is_in_a_list_or_a_quote_stands_further_right() -> None:
    found = depths(method_pdf.flowables(DOCUMENT, {}))
    step = method_pdf.STEP
    assert [found[text] for text in ("The end.", "• star one", "• star inner", "• star deepest")] == [
        0.0,
        step,
        2 * step,
        3 * step,
    ]
    assert found["A quote in it."] == 2 * step
    assert found["A second paragraph."] == step
    assert found["• star in a number"] == 3 * step


def test_links_lead_to_the_web_alone() -> None:
    pdf = method_pdf.make(DOCUMENT + "[x](javascript:alert%281%29) [y](file:///etc/passwd)", {}, "t")
    assert re.findall(rb"/URI \((.*?)\)", pdf) == [b"https://example.org/?a=1&b=2"]


def test_headings_are_the_larger_the_higher() -> None:
    sizes = [method_pdf.HEADINGS[name].fontSize for name in ("h1", "h2", "h3", "h4")]
    assert sizes == sorted(set(sizes), reverse=True)
    six = method_pdf.flowables("###### six", {})
    assert (lines(six), six[0].style.fontSize) == (["six"], sizes[-1])


def test_a_picture_of_its_own_is_drawn_above_its_caption() -> None:
    from pipeline.contest.submit import pictures

    png = pictures.cost({"rows": [1, 2], "elapsed_s": [0.1, 0.2]})
    (first, second) = method_pdf.flowables("![one](a.png)\n![two](a.png)", {"a.png": png})
    assert [type(each) for each in first._content] == [Image, Paragraph]
    assert lines([first, second]) == ["one", "two"]
    assert lines(method_pdf.flowables("![one](b.png)", {"a.png": png})) == ["one"]


def test_code_wider_than_the_page_is_broken_and_whole() -> None:
    (_, code, _) = method_pdf.flowables("```\n" + "x" * 150 + "\n```", {})
    assert code.getPlainText().replace("\n", "") == "x" * 150
    assert max(map(len, code.getPlainText().split("\n"))) < 110


@pytest.mark.parametrize("text", ["", "*\n\n1.\n", "| | |\n|-|-|\n", "> " * 30 + "deep", "* " * 30 + "deep", "[](x)"])
def test_odd_texts_become_a_page_too(text: str) -> None:
    assert method_pdf.make(text + "\n\nend", {}, "t").count(b"/Type /Page\n") == 1


def test_long_texts_become_several_pages_and_the_same_bytes_every_time() -> None:
    long = "\n\n".join(["word " * 300, "```\n" + "line\n" * 100 + "```", "| a | b |\n|-|-|\n" + "| x | y |\n" * 80] * 4)
    made = method_pdf.make(long, {}, "t")
    assert made.count(b"/Type /Page\n") > 6
    assert made == method_pdf.make(long, {}, "t")


@pytest.mark.parametrize("name", ["*Blue*", "a_b_c", "_under_", "[x](https://e.org)", "`code`", "a | b", "# <i>\\"])
def test_a_teams_name_stays_as_it_is(name: str) -> None:
    (title,) = method_pdf.flowables(f"# {run_figures.plain(name)}: method", {})
    assert lines([title]) == [f"{name}: method"]
