"""What several workers see, added up."""

from collections import deque

import pytest

from gateway.dashboard.board import Board
from gateway.dashboard.journal import Journal
from gateway.dashboard.merging import merge
from gateway.dashboard.slots import KEPT, SECONDS, Slots
from gateway.dashboard.views import WorkerView
from gateway.settings import Tier
from gateway.upstreams import UpstreamReport
from policies.facts import AttemptFinished, CallFinished, CallShed
from policies.service import Attempt
from tests.kit.upstream import make_call

NOW = 1_000_000.0


def report(state="closed", why="", limit=4, inflight=1, next_probe=None):
    return UpstreamReport(
        upstream="up",
        model="m",
        passed_on=False,
        state=state,
        why=why,
        next_probe=next_probe,
        limit=limit,
        inflight=inflight,
        waiting=0,
        held_off=0.0,
        first_token=None,
        error_ratio=0.0,
        status_page=None,
        weight=1.0,
    )


def view(worker, *reports, journal=None, at=NOW, running=None):
    journal = journal or Journal(deque(), lambda: at)
    return WorkerView(
        worker=worker,
        at=at,
        upstreams=list(reports),
        running=running or {},
        waiting={},
        calls=journal.calls.series(at),
        shed=journal.shed.series(at),
        refused=journal.refused.series(at),
        first_tokens=journal.first_tokens.series(at),
        first_token_seconds=journal.first_token_seconds.series(at),
        requests=[],
    )


def merged(*views):
    return merge(views, {"default": Tier()}, workers=2, cache=None, today=None)


def test_limits_and_calls_add_up_and_the_worst_state_is_told():
    seen = merged(view(1, report()), view(2, report("open", "5 failures", inflight=0, next_probe=3.0)))
    (upstream,) = seen.upstreams
    assert (upstream.state, upstream.why, upstream.next_probe) == ("open", "5 failures", 3.0)
    assert upstream.states == {"closed": 1, "open": 1}
    assert (upstream.limit, upstream.inflight) == (8, 1)


def test_tiers_add_up():
    (tier,) = merged(view(1, running={"default": 2}), view(2, running={"default": 3})).tiers
    assert tier.running == 5


class Nowhere:
    def emit(self, fact):
        pass


def finished(call, outcome="ok"):
    return CallFinished(call, outcome, 2.0, 0.5, None, "up", "m")


def test_first_tokens_of_all_workers_have_one_mean():
    views = []
    for worker, seconds in ((1, 0.2), (2, 0.4)):
        journal = Journal(Nowhere(), lambda: NOW)
        journal.emit(AttemptFinished(make_call(), Attempt("up", "m", "ok", 1.0, seconds)))
        views.append(view(worker, report(), journal=journal))
    (upstream,) = merged(*views).upstreams
    assert upstream.first_token == pytest.approx(0.3)
    assert upstream.first_tokens[-1] == pytest.approx(0.3)
    assert upstream.first_tokens[:-1] == [None] * (KEPT - 1)


def test_calls_count_by_who_has_to_mend_them():
    journal = Journal(Nowhere(), lambda: NOW)
    for outcome in ("ok", "cancelled", "RateLimited", "InvalidRequest", "NoHealthyUpstream"):
        journal.emit(finished(make_call(), outcome))
    journal.emit(CallShed(make_call(), "default", "late", 1.0))
    seen = merged(view(1, journal=journal))
    assert (seen.traffic.answered[-1], seen.traffic.refused[-1], seen.traffic.failed[-1]) == (2, 2, 1)
    assert seen.tiers[0].shed == 1


def test_a_journal_keeps_no_prompt():
    journal = Journal(Nowhere(), lambda: NOW)
    journal.emit(finished(make_call(body={"messages": [{"role": "user", "content": "secret words"}]})))
    assert "secret words" not in repr(journal.requests)


def test_old_slots_are_forgotten():
    slots = Slots()
    slots.add("ok", NOW)
    later = NOW + SECONDS * (KEPT - 1)
    slots.add("ok", later)
    assert sum(slots.series(later)["ok"].values()) == 2
    assert sum(slots.series(later + SECONDS)["ok"].values()) == 1


def test_a_board_shows_the_others_while_they_live(tmp_path):
    now = NOW
    board = Board(tmp_path / "board", 2, lambda: now)
    assert not board.watched
    board.watch()
    assert board.watched
    board.publish(view(1, report()))
    board.publish(view(2))
    (other,) = board.others(2)
    assert (other.worker, other.upstreams) == (1, [report()])
    now += 10
    assert not board.watched
    assert board.others(2) == []
    assert not list((tmp_path / "board").glob("1.*"))


def test_a_board_that_cannot_be_written_shows_nothing_and_harms_nobody(tmp_path):
    board = Board(tmp_path / "board", 2, lambda: NOW)
    (tmp_path / "board").rmdir()
    board.publish(view(1))
    assert board.others(2) == []
