"""Pages that are open and looked at again and again."""

from __future__ import annotations

import asyncio

import pytest
from starlette.testclient import TestClient

from doteval.view.looks import AGAIN_HEADER, LOOK_HEADER, Looks, MadePage
from doteval.view.time_shares import TimeShare

LOOK = {LOOK_HEADER: "1"}


def page(text: str, seconds: float = 0.0, live_seconds: int | None = 2) -> MadePage:
    return MadePage(200, text.encode(), "text/html", live_seconds, seconds)


class Maker:
    """Makes a page again and again, and counts."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.made = 0
        self.seconds = seconds

    async def __call__(self) -> MadePage:
        await asyncio.sleep(0)
        self.made += 1
        return page(f"number {self.made}", self.seconds)


def test_all_who_look_share_one_page() -> None:
    looks, make = Looks(), Maker()

    async def together() -> list[MadePage]:
        return await asyncio.gather(*(looks.look("page", make) for _ in range(10)))

    assert {each.body for each in asyncio.run(together())} == {b"number 1"}
    assert make.made == 1


def test_a_page_is_made_again_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, make, now = Looks(), Maker(), [100.0]
    monkeypatch.setattr("doteval.view.looks.clocks.monotonic", lambda: now[0])
    for seconds, number in ((0.0, 1), (1.9, 1), (0.2, 2)):
        now[0] += seconds
        assert asyncio.run(looks.look("page", make)).body == f"number {number}".encode()


def test_the_more_pages_are_open_and_the_slower_they_are_the_less_often_each_is_made() -> None:
    looks = Looks(TimeShare(0.02))
    again = []
    for number in range(10):
        answer = asyncio.run(looks.look(number, Maker(0.06)))
        again.append(looks.again(number, answer))
    assert again[0] == pytest.approx(3.0, abs=0.5)
    assert again[-1] == pytest.approx(30.0, abs=0.5)


def test_even_many_slow_pages_are_made_again_within_a_minute() -> None:
    looks = Looks(TimeShare(0.02))
    answer = asyncio.run(looks.look("page", Maker(30.0)))
    assert looks.again("page", answer) == pytest.approx(60.0, abs=0.5)


def test_what_was_made_for_a_visitor_answers_the_next_look() -> None:
    looks, make = Looks(), Maker()
    looks.keep("page", page("of a visitor"))
    assert asyncio.run(looks.look("page", make)).body == b"of a visitor"
    assert make.made == 0


def test_pages_that_are_not_live_are_not_kept() -> None:
    looks, make = Looks(), Maker()
    looks.keep("page", page("live"))
    looks.keep("page", page("not", live_seconds=None))
    assert looks.again("page", page("not", live_seconds=None)) is None
    assert asyncio.run(looks.look("page", make)).body == b"number 1"


def test_the_oldest_pages_are_forgotten_when_all_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doteval.view.looks._MOST_BYTES", 10)
    looks, make = Looks(), Maker()
    looks.keep("first", page("six..."))
    looks.keep("second", page("seven.."))
    assert asyncio.run(looks.look("second", make)).body == b"seven.."
    assert asyncio.run(looks.look("first", make)).body == b"number 1"


def test_the_answer_to_a_look_says_when_to_look_again(view: TestClient) -> None:
    first = view.get("/experiment?name=running")
    second = view.get("/experiment?name=running", headers=LOOK)
    assert second.text == first.text
    assert float(second.headers[AGAIN_HEADER]) >= 1.0
    known = view.get("/experiment?name=running", headers={**LOOK, "If-None-Match": first.headers["ETag"]})
    assert known.status_code == 304
    assert AGAIN_HEADER in known.headers


def test_a_look_at_a_page_that_is_gone_says_so_and_is_not_repeated_at_once(view: TestClient) -> None:
    answer = view.get("/experiment?name=gone", headers=LOOK)
    assert answer.status_code == 404
    assert float(answer.headers[AGAIN_HEADER]) >= 10.0


def test_a_page_that_was_not_looked_at_for_long_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    share, now = TimeShare(0.1), [100.0]
    monkeypatch.setattr("doteval.view.time_shares.clocks.monotonic", lambda: now[0])
    share.note("closed", 1.0, least=2)
    share.note("open", 0.5, least=2)
    assert share.interval() == pytest.approx(15.0)
    now[0] += 15
    share.note("open", 0.5, least=2)
    now[0] += 15
    assert share.interval() == pytest.approx(5.0)


def test_a_page_on_which_something_is_computed_is_made_soon() -> None:
    looks = Looks(TimeShare(0.001))
    assert looks.again("page", asyncio.run(looks.look("slow", Maker(1.0)))) == pytest.approx(60.0)
    assert looks.again("page", page("computing", live_seconds=1)) == 1.0
