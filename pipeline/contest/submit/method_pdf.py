"""A PDF of a Markdown text, without a browser or TeX: CommonMark with tables, as markdown-it-py reads it.

Headings, paragraphs, lists in lists, quotes, code, tables, links, emphasis and pictures. HTML in the text stays text;
links lead to the web alone. The same text gives the same bytes: reportlab leaves dates and random ids out under
`invariant`. Letters are DejaVu, which matplotlib brings along; Korean, which it lacks, is set in a font that
PDF readers bring along.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path

import matplotlib
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER, TA_LEFT, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    HRFlowable,
    Image,
    Indenter,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    XPreformatted,
)

MARGIN = 22 * mm
PADDING = 6.0
"""Points that reportlab's frame keeps free on each side, within the margins."""
WIDTH = A4[0] - 2 * (MARGIN + PADDING)
STEP = 14.0
"""Points by which what is in a list or a quote moves to the right."""
INK, SOFT, LINE, SHADE = (colors.HexColor(code) for code in ("#1b2330", "#5c6675", "#d5dae1", "#f3f5f8"))
LINK = "#2563a8"
KOREAN = "HYSMyeongJo-Medium"
FONTS = {
    "Text": "DejaVuSans",
    "Text-Bold": "DejaVuSans-Bold",
    "Text-Italic": "DejaVuSans-Oblique",
    "Text-BoldItalic": "DejaVuSans-BoldOblique",
    "Code": "DejaVuSansMono",
}
CODE_SIZE = 7.4
CODE_CHARACTER = 0.602 * CODE_SIZE
"""Points that a letter of code takes: DejaVu Sans Mono is 0.602 em wide."""
BODY = ParagraphStyle("body", fontName="Text", fontSize=9.2, leading=13.6, textColor=INK, spaceAfter=6)
TIGHT = ParagraphStyle("tight", BODY, spaceAfter=1.5)
CODE = ParagraphStyle("code", BODY, fontName="Code", fontSize=CODE_SIZE, leading=10.5, backColor=SHADE, borderPadding=5)
CELL = ParagraphStyle("cell", BODY, fontSize=8.8, leading=12.2, spaceAfter=0)
CAPTION = ParagraphStyle("caption", BODY, fontSize=8, textColor=SOFT, alignment=TA_CENTER, spaceAfter=8)
HEADING = ParagraphStyle("heading", BODY, fontName="Text-Bold", keepWithNext=1)
HEADINGS = {
    "h1": ParagraphStyle("h1", HEADING, fontSize=17, leading=22, spaceAfter=8),
    "h2": ParagraphStyle("h2", HEADING, fontSize=11.5, leading=15, spaceBefore=8, spaceAfter=4),
    "h3": ParagraphStyle("h3", HEADING, fontSize=9.8, leading=13.6, spaceBefore=6, spaceAfter=3),
    "h4": ParagraphStyle("h4", HEADING, textColor=SOFT, spaceBefore=4, spaceAfter=2),
}
ALIGNMENT = {"text-align:right": TA_RIGHT, "text-align:center": TA_CENTER}
_HANGUL = re.compile(r"[\u1100-\u11ff\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]+")


@dataclass(frozen=True)
class _Place:
    """Where in the document a block stands."""

    pictures: Mapping[str, bytes]
    indent: float = 0.0
    """Points from the left margin."""
    quoted: bool = False

    @property
    def width(self) -> float:
        return WIDTH - self.indent

    def inside(self, quoted: bool = False) -> _Place:
        return replace(self, indent=self.indent + STEP, quoted=self.quoted or quoted)

    def styled(self, style: ParagraphStyle) -> ParagraphStyle:
        return ParagraphStyle(f"quoted {style.name}", style, textColor=SOFT) if self.quoted else style


def make(text: str, pictures: Mapping[str, bytes], title: str, keywords: str = "") -> bytes:
    """The PDF. `keywords` stand in its properties; `pictures` are PNG files by the names that the text gives them."""
    file = io.BytesIO()
    page = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=18 * mm,
        bottomMargin=18 * mm,
        title=title,
        keywords=keywords,
        author="",
        invariant=1,
    )
    foot = partial(_foot, title)
    page.build(flowables(text, pictures), onFirstPage=foot, onLaterPages=foot)
    return file.getvalue()


def flowables(text: str, pictures: Mapping[str, bytes]) -> list[Flowable]:
    """The blocks of the text in its order, as reportlab sets them."""
    _register_fonts()
    tokens = MarkdownIt("commonmark", {"html": False}).enable("table").parse(text)
    return list(_blocks(SyntaxTreeNode(tokens).children, _Place(pictures)))


def _register_fonts() -> None:
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    for name, file in FONTS.items():
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{file}.ttf")))
    pdfmetrics.registerFontFamily(
        "Text", normal="Text", bold="Text-Bold", italic="Text-Italic", boldItalic="Text-BoldItalic"
    )
    pdfmetrics.registerFont(UnicodeCIDFont(KOREAN))


def _foot(title: str, canvas: Canvas, page: SimpleDocTemplate) -> None:
    canvas.setFont("Text", 7.5)
    canvas.setFillColor(SOFT)
    canvas.drawRightString(A4[0] - MARGIN, 10 * mm, str(page.page))
    note = Paragraph(_letters(title), ParagraphStyle("foot", BODY, fontSize=7.5, textColor=SOFT))
    note.wrapOn(canvas, WIDTH * 0.8, 10 * mm)
    note.drawOn(canvas, MARGIN, 9 * mm)


def _blocks(nodes: Sequence[SyntaxTreeNode], place: _Place, style: ParagraphStyle = BODY) -> Iterator[Flowable]:
    for node in nodes:
        if node.type == "heading":
            heading = HEADINGS.get(node.tag, HEADINGS["h4"])
            yield Paragraph(_inline(node, heading.fontSize), place.styled(heading))
        elif node.type == "paragraph":
            yield from _paragraph(node, place, style)
        elif node.type in ("fence", "code_block"):
            yield from _code(node.content, place)
        elif node.type in ("bullet_list", "ordered_list"):
            yield from _list(node, place)
        elif node.type == "blockquote":
            yield Indenter(left=STEP)
            yield from _blocks(node.children, place.inside(quoted=True))
            yield Indenter(left=-STEP)
        elif node.type == "table":
            yield _table(node, place)
        elif node.type == "hr":
            yield HRFlowable(width="100%", thickness=0.5, color=LINE, spaceBefore=6, spaceAfter=8)
        else:
            raise AssertionError(f"a block of markdown-it that is not set: {node.type}")


def _paragraph(node: SyntaxTreeNode, place: _Place, style: ParagraphStyle) -> Iterator[Flowable]:
    """A paragraph; one of pictures alone becomes the pictures, each above its caption."""
    parts = node.children[0].children
    if {part.type for part in parts} <= {"image", "softbreak"} and all(
        str(part.attrs["src"]) in place.pictures for part in parts if part.type == "image"
    ):
        yield from (_picture(part, place) for part in parts if part.type == "image")
    else:
        yield Paragraph(_inline(node), place.styled(style))


def _picture(node: SyntaxTreeNode, place: _Place) -> Flowable:
    png = place.pictures[str(node.attrs["src"])]
    across, down = ImageReader(io.BytesIO(png)).getSize()
    width = place.width * 0.86
    image = Image(io.BytesIO(png), width, width * down / across)
    return KeepTogether([image, Paragraph(_letters(node.content), CAPTION)])


def _code(content: str, place: _Place) -> Iterator[Flowable]:
    """Lines as they are; those that are wider than the page are broken."""
    most = int((place.width - 2 * CODE.borderPadding) / CODE_CHARACTER)
    lines = [line[at : at + most] for line in content.rstrip().split("\n") for at in range(0, len(line) or 1, most)]
    yield Spacer(0, 4)
    yield XPreformatted(_letters("\n".join(lines)), CODE)
    yield Spacer(0, 8)


def _list(node: SyntaxTreeNode, place: _Place) -> Iterator[Flowable]:
    """Items with their mark; an item's further blocks, lists too, stand below its first."""
    first = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
    inside = place.inside()
    yield Indenter(left=STEP)
    for count, item in enumerate(node.children):
        mark = "•" if first is None else f"{first + count}{item.markup}"
        # Numbers of two digits and more need their room too.
        style = ParagraphStyle("item", TIGHT, bulletIndent=-STEP if len(mark) < 3 else -STEP - 6 * (len(mark) - 2))
        blocks = item.children
        words = ""
        if blocks and blocks[0].type == "paragraph":
            words, blocks = _inline(blocks[0]), blocks[1:]
        yield Paragraph(words, inside.styled(style), bulletText=mark)
        yield from _blocks(blocks, inside, TIGHT)
    yield Indenter(left=-STEP)
    if place.indent == 0:
        yield Spacer(0, 5)


def _table(node: SyntaxTreeNode, place: _Place) -> Table:
    """An empty head is left out. Of two columns the first, which names things, is the narrower."""
    head, *bodies = node.children
    rows = [row for part in (head, *bodies) for row in part.children]
    named = any(cell.children[0].content for cell in rows[0].children)
    cells = [[_cell(cell) for cell in row.children] for row in (rows if named else rows[1:])]
    count = len(rows[0].children)
    widths = [0.38, 0.62] if count == 2 else [1 / count] * count
    table = Table(
        cells or [[""] * count],
        colWidths=[place.width * share for share in widths],
        repeatRows=int(named),
        spaceBefore=2,
        spaceAfter=10,
    )
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


def _cell(node: SyntaxTreeNode) -> Paragraph:
    alignment = ALIGNMENT.get(str(node.attrs.get("style", "")), TA_LEFT)
    bold = {"fontName": "Text-Bold"} if node.type == "th" else {}
    return Paragraph(_inline(node), ParagraphStyle("cell", CELL, alignment=alignment, **bold))


def _inline(node: SyntaxTreeNode, size: float = BODY.fontSize) -> str:
    """The text of a block, as reportlab's own marks. `size`: points of the letters around."""
    within = "".join(_inline(child, size) for child in node.children) or _letters(node.content)
    if node.type == "code_inline":
        return f'<font name="Code" size="{0.9 * size:.1f}">{within}</font>'
    if node.type == "link" and str(node.attrs["href"]).startswith(("https://", "http://")):
        return f'<a href="{escape(str(node.attrs["href"]))}" color="{LINK}">{within}</a>'
    return {"strong": f"<b>{within}</b>", "em": f"<i>{within}</i>", "softbreak": " ", "hardbreak": "<br/>"}.get(
        node.type,
        within,  # text; also the words of a picture among words, or of one that is not there, and of other links
    )


def _letters(text: str) -> str:
    """Escaped, and Korean in the font that has it."""
    return _HANGUL.sub(lambda match: f'<font name="{KOREAN}">{match[0]}</font>', escape(text, quote=False))
