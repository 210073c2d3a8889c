"""A PDF of a plain Markdown text, without a browser or TeX: headings, paragraphs, bullets, tables, code, pictures.

The same text gives the same bytes: reportlab leaves dates and random ids out when it is told to (`invariant`). Letters
are DejaVu, which matplotlib brings along; Korean, which it lacks, is set in a font that PDF readers bring along.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from functools import partial
from html import escape
from pathlib import Path

import matplotlib
from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, Preformatted, SimpleDocTemplate, Spacer, Table

MARGIN = 22 * mm
WIDTH = A4[0] - 2 * MARGIN
INK, SOFT, LINE, SHADE = (colors.HexColor(code) for code in ("#1b2330", "#5c6675", "#d5dae1", "#f3f5f8"))
KOREAN = "HYSMyeongJo-Medium"
FONTS = {"Text": "DejaVuSans", "Text-Bold": "DejaVuSans-Bold", "Code": "DejaVuSansMono"}
BODY = ParagraphStyle("body", fontName="Text", fontSize=9.2, leading=13.6, textColor=INK, spaceAfter=6)
STYLES = {
    "#": ParagraphStyle("title", BODY, fontName="Text-Bold", fontSize=17, leading=22, spaceAfter=8),
    "##": ParagraphStyle("heading", BODY, fontName="Text-Bold", fontSize=11.5, leading=15, spaceBefore=8, spaceAfter=4),
    "bullet": ParagraphStyle("bullet", BODY, leftIndent=10, bulletIndent=0, spaceAfter=1.5),
    "cell": ParagraphStyle("cell", BODY, fontSize=8.8, leading=12.2, spaceAfter=0),
    "code": ParagraphStyle("code", BODY, fontName="Code", fontSize=7.4, leading=10.5, backColor=SHADE, borderPadding=5),
    "caption": ParagraphStyle("caption", BODY, fontSize=8, textColor=SOFT, alignment=TA_CENTER, spaceAfter=8),
}
_HANGUL = re.compile(r"[\u1100-\u11ff\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]+")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")


def make(text: str, pictures: Mapping[str, bytes], title: str) -> bytes:
    """`pictures` by the names that the text gives them."""
    _register_fonts()
    file = io.BytesIO()
    page = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=18 * mm,
        bottomMargin=18 * mm,
        title=title,
        author="",
        invariant=1,
    )
    foot = partial(_foot, title)
    page.build(list(_flowables(text, pictures)), onFirstPage=foot, onLaterPages=foot)
    return file.getvalue()


def _register_fonts() -> None:
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    for name, file in FONTS.items():
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{file}.ttf")))
    pdfmetrics.registerFontFamily("Text", normal="Text", bold="Text-Bold", italic="Text", boldItalic="Text-Bold")
    pdfmetrics.registerFont(UnicodeCIDFont(KOREAN))


def _foot(title: str, canvas: Canvas, page: SimpleDocTemplate) -> None:
    canvas.setFont("Text", 7.5)
    canvas.setFillColor(SOFT)
    canvas.drawRightString(A4[0] - MARGIN, 10 * mm, str(page.page))
    note = Paragraph(_inline(title), ParagraphStyle("foot", BODY, fontSize=7.5, textColor=SOFT))
    note.wrapOn(canvas, WIDTH * 0.8, 10 * mm)
    note.drawOn(canvas, MARGIN, 9 * mm)


def _flowables(text: str, pictures: Mapping[str, bytes]) -> Iterator[Flowable]:
    for lines in _blocks(text):
        mark, _, rest = lines[0].partition(" ")
        if mark in ("#", "##"):
            yield Paragraph(_inline(rest), STYLES[mark])
        elif lines[0].startswith("```"):
            yield Spacer(0, 4)
            yield Preformatted("\n".join(lines[1:-1]), STYLES["code"])
            yield Spacer(0, 8)
        elif lines[0].startswith("|"):
            yield _table(lines)
        elif mark == "*":
            for item in "\n".join(lines)[2:].split("\n* "):
                yield Paragraph(_inline(item.replace("\n", " ")), STYLES["bullet"], bulletText="•")
            yield Spacer(0, 5)
        elif (found := _PICTURE.fullmatch(lines[0])) is not None:
            yield _picture(pictures[found[2]], found[1])
        else:
            yield Paragraph(_inline(" ".join(lines)), BODY)


def _blocks(text: str) -> Iterator[list[str]]:
    """Lines that belong together: between blank ones, but code as a whole."""
    block: list[str] = []
    for line in text.split("\n"):
        inside = bool(block) and block[0].startswith("```")
        closes = inside and line.startswith("```")
        if line.strip() or inside:
            block.append(line)
        if block and (closes or not (line.strip() or inside)):
            yield block
            block = []
    if block:
        yield block


def _table(lines: list[str]) -> Table:
    """Rows between bars; the second line, of dashes, and an empty head are left out."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.strip(" |-:")]
    cells = [[Paragraph(_inline(cell), STYLES["cell"]) for cell in row] for row in rows]
    rest = (WIDTH * 0.62) / max(1, len(rows[0]) - 1)
    table = Table(cells, colWidths=[WIDTH * 0.38, *[rest] * (len(rows[0]) - 1)], spaceBefore=2, spaceAfter=10)
    table.setStyle(
        [
            ("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE),
            ("LINEABOVE", (0, 0), (-1, 0), 0.5, LINE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ("TOPPADDING", (0, 0), (-1, -1), 3.2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3.8),
        ]
    )
    return table


def _picture(png: bytes, caption: str) -> Flowable:
    across, down = ImageReader(io.BytesIO(png)).getSize()
    width = WIDTH * 0.86
    return KeepTogether(
        [Image(io.BytesIO(png), width, width * down / across), Paragraph(_inline(caption), STYLES["caption"])]
    )


def _inline(text: str) -> str:
    """Bold, code and links of a line as reportlab's own marks."""
    marked = escape(text, quote=False)
    marked = re.sub(r"`([^`]+)`", r'<font name="Code" size="8.2">\1</font>', marked)
    marked = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", marked)
    marked = re.sub(r"(?<!!)\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2" color="#2563a8">\1</a>', marked)
    return _HANGUL.sub(lambda found: f'<font name="{KOREAN}">{found[0]}</font>', marked)
