"""The verifier by mutation, in small; ``python -m pycomm.testing.mutation`` does it in large."""

from __future__ import annotations

import pytest

from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import plan
from pycomm.testing import mutation
from pycomm.testing.brute import fails_under
from pycomm.testing.mutants import KINDS, mutants
from pycomm.types import CollectiveKind
from pycomm.verify import verify

pytestmark = pytest.mark.timeout(120)


def schedules() -> list[object]:
    requests = [
        ("ring", PlanRequest(CollectiveKind.ALLREDUCE, 3)),
        ("ring", PlanRequest(CollectiveKind.REDUCE, 3, 1)),
        ("bruck", PlanRequest(CollectiveKind.ALLTOALL, 3)),
        ("recursive_doubling", PlanRequest(CollectiveKind.ALLREDUCE, 4, in_place=True)),
        ("pairwise", PlanRequest(CollectiveKind.ALLTOALLV, 3, in_place=True)),
        ("binomial", PlanRequest(CollectiveKind.SCATTER, 5, 2)),
    ]
    return [plan(name, request) for name, request in requests]


def test_no_mutant_survives() -> None:
    scores = mutation.score(schedules(), 3)
    assert [s.survivors for s in scores.values()] == [[]] * len(KINDS)
    assert [s.unconfirmed for s in scores.values()] == [[]] * len(KINDS)
    assert all(s.made == s.killed + s.equivalent.total() for s in scores.values())
    assert sum(s.killed for s in scores.values()) > 200
    quiet = {kind for kind, s in scores.items() if s.killed == 0}
    # Moving both ends keeps the order here, receiving into OUTPUT twice is harmless, one message suffices.
    assert quiet <= {"move message to channel", "duplicate message", "lower capacity"}


def test_a_blind_verifier_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def blind(schedule: object) -> list[object]:
        return [d for d in verify(schedule) if d.code not in ("V305", "V302")]

    monkeypatch.setattr(mutation, "verify", blind)
    monkeypatch.setattr(mutation, "corpus", lambda sizes: schedules()[: len(sizes)])
    assert mutation.main(["--ranks", "1", "1", "--per-kind", "2"]) == 1
    assert "survivor: reduce -> copy of ring allreduce on 3 ranks" in capsys.readouterr().out


def test_mutants_are_repeatable_and_differ() -> None:
    original = plan("ring", PlanRequest(CollectiveKind.ALLREDUCE, 3))
    for kind in KINDS:
        first = [m.digest() for m in mutants(original, kind, 4)]
        assert first == [m.digest() for m in mutants(original, kind, 4)]
        assert len({*first, original.digest()}) == len(first) + 1


def test_brute_force_finds_right_schedules_right() -> None:
    for schedule in mutation.corpus((3,)):
        assert fails_under(schedule, tries=0) is None
