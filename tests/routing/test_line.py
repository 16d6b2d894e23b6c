"""A line that is fair between subjects, against a slow one that is plainly right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.routing.line import Line

STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "join", "leave", "next", "drop"]), st.integers(0, 99)),
    max_size=60,
)


class Plain:
    """Subjects in the order of their turns, each with its items."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, list[int]]] = []

    def of(self, subject: str) -> list[int]:
        return next((items for name, items in self.waiting if name == subject), [])

    def join(self, subject: str, item: int) -> None:
        if self.of(subject):
            self.of(subject).append(item)
        else:
            self.waiting.append((subject, [item]))

    def leave(self, item: int) -> None:
        for _, items in self.waiting:
            if item in items:
                items.remove(item)
        self.waiting = [each for each in self.waiting if each[1]]

    def next(self) -> int:
        subject, items = self.waiting.pop(0)
        first = items.pop(0)
        if items:
            self.waiting.append((subject, items))
        return first

    @property
    def most(self) -> int:
        return max((len(items) for _, items in self.waiting), default=0)


@given(STEPS)
def test_it_goes_as_the_plain_one(steps: list[tuple[str, int]]) -> None:
    line: Line[int] = Line()
    plain = Plain()
    whose: dict[int, str] = {}
    for item, (step, number) in enumerate(steps):
        if step == "join":
            whose[item] = "abcd"[number % 4]
            line.join(whose[item], item)
            plain.join(whose[item], item)
        elif step == "leave" and whose:
            left = sorted(whose)[number % len(whose)]  # it may have gone already
            line.leave(whose[left], left)
            plain.leave(left)
        elif step == "next" and plain.waiting:
            assert line.next() == plain.next()
        elif step == "drop" and plain.waiting:
            dropped = line.drop()
            of_subject = plain.of(whose[dropped])
            assert of_subject[-1] == dropped
            assert len(of_subject) == plain.most
            plain.leave(dropped)
        assert len(line) == sum(len(items) for _, items in plain.waiting)
        assert line.most == plain.most
        assert [line.of(name) for name in "abcd"] == [len(plain.of(name)) for name in "abcd"]


def test_subjects_take_turns() -> None:
    line: Line[str] = Line()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        line.join(item[0], item)
    assert [line.next() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(line) == line.most == 0
