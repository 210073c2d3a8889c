"""A set as the organiser's private one may be: like none of the nineteen benchmarks. All texts are ours."""

from __future__ import annotations

from pathlib import Path

from pipeline.dataset import records
from pipeline.dataset.records import Record

Turn = dict[str, str]

FEW_SHOT = "".join(
    f"Word: {word}\nPlural: {plural}\n\n"
    for word, plural in [("ox", "oxen"), ("mouse", "mice"), ("leaf", "leaves"), ("sheep", "sheep"), ("hero", "heroes")]
)
CODE = (
    "Mend the function. Answer with the whole function only.\n\n```python\n"
    "def mean(xs: list[float]) -> float:\n\ttotal = 0\n\tfor x in xs:\n\t\ttotal =+ x  # \\o/\n"
    "\treturn total / len(xs)\n```\n"
)
LANGUAGES = [
    "다음 문장을 읽고 질문에 답하시오. 서울은 한강을 끼고 있는 도시이다. 서울을 지나는 강의 이름은 무엇인가?",
    "اقرأ الجملة وأجب: تقع القاهرة على ضفاف نهر النيل. على أي نهر تقع القاهرة؟",
    "阅读句子并回答:长江流经武汉,黄河流经兰州。哪条河流经兰州?",
    "Прочитай и ответь: Нева течёт через Санкт-Петербург. Какая река течёт через этот город? 🌊",
]


def user(content: str) -> Turn:
    return {"role": "user", "content": content}


def passage(sentences: int) -> str:
    """About ten tokens a sentence."""
    rooms = ("hall", "tower", "cellar", "garden", "stable")
    return " ".join(
        f"On day {day} the clerk counted {day * 7 % 90} keys in the {rooms[day % 5]}." for day in range(sentences)
    )


def talk(exchanges: int) -> list[Turn]:
    """Turns in which the assistant has answered before."""
    turns = []
    for number in range(exchanges):
        turns += [
            user(f"Add {number} to the sum."),
            {"role": "assistant", "content": f"The sum is {sum(range(number + 1))}."},
        ]
    return [*turns, user("What is the sum?")]


def chats() -> list[tuple[list[Turn], str | None]]:
    """Chat and answer of every row."""
    rows: list[tuple[list[Turn], str | None]] = []
    rows += [([user(f"{FEW_SHOT}Word: {word}\nPlural:")], f"{word}s") for word in ("key", "door", "clerk", "stable")]
    rows += [(talk(exchanges), str(sum(range(exchanges)))) for exchanges in (1, 3, 9)]
    rows += [([{"role": "system", "content": "Answer in one word."}, user(f"Is {n} odd?")], "yes") for n in (3, 1001)]
    rows += [([user(f"{passage(sentences)}\n\nHow many keys on day 5?")], "35") for sentences in (20, 190)]
    rows += [
        ([user(CODE)], None),
        ([user(f"Which rivers?\nchoices: {['Nile', 'Neva', 'Elbe', 'Han', 'Ob']}")], "Nile, Neva"),
    ]
    rows += [([user(text)], None) for text in LANGUAGES]
    return rows


def write(path: Path) -> list[Record]:
    """The set as a data file, and its rows as the product reads them."""
    path.write_text("".join(records.write_line(turns, answer) for turns, answer in chats()), encoding="utf-8")
    return records.read(path)
