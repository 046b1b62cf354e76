"""Who checks the checker: wrong schedules that the verifier must reject, made by the thousand.

``python -m pycomm.testing.mutation`` takes schedules of every planner, changes each a little in every way of
:mod:`pycomm.testing.mutants`, and asks the verifier. A mutant that it lets pass is run by brute force under
many timings (:mod:`pycomm.testing.brute`): when the results are right under all of them the change was none
in meaning, and the mutant is *equivalent*; otherwise it is a *survivor*, a hole in the verifier, and the
command exits with 1.

The last column looks the other way: mutants rejected for wrong results or deadlock alone, although brute
force found no fault. Structure (V1) and reads of unwritten or lent memory (V301, V305) are a matter of rules,
and may reject what happens to work.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import candidates
from pycomm.schedule import Schedule
from pycomm.testing.brute import fails_under
from pycomm.testing.mutants import KINDS, mutants
from pycomm.types import CollectiveKind
from pycomm.verify import verify

__all__ = ["Score", "corpus", "main", "score"]

_REASONS = {
    "duplicate op": "doing it twice changes nothing",
    "duplicate message": "receiving it twice changes nothing",
    "swap neighbours": "the two ops do not depend on each other",
    "swap far apart": "the ops do not depend on one another",
    "move message to channel": "the channel it left keeps its order",
    "shrink scratch": "the slot is never used",
    "rename scratch": "the slot has the same size",
    "lower capacity": "fewer unmatched messages suffice",
    "drop op": "nothing depends on the op",
    "drop message": "nothing depends on the message",
}
_PROVABLE = {"V302", "V303", "V304", "V401", "V402"}
_BARRIER = "a barrier may count a contribution more than once"
_OTHER = "the results are the same by another way"


@dataclass
class Score:
    """What became of the mutants of one kind.

    Parameters
    ----------
    made, killed
        Mutants made, and rejected by the verifier.
    equivalent
        Let pass and right under every timing tried, by reason.
    survivors
        Let pass and wrong: each with its schedule, and the fault that brute force found.
    codes
        First code of each rejection.
    unconfirmed
        Rejected for wrong results or deadlock only, though brute force found no fault.
    """

    made: int = 0
    killed: int = 0
    equivalent: Counter[str] = field(default_factory=Counter)
    survivors: list[tuple[str, Schedule]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    unconfirmed: list[tuple[str, Schedule]] = field(default_factory=list)


def corpus(sizes: Iterable[int] = (2, 3, 4, 5)) -> Iterator[Schedule]:
    """Schedules of every planner for every collective, in place and not, with a root in the middle."""
    for nranks in sizes:
        for kind in CollectiveKind:
            if kind in (CollectiveKind.SEND, CollectiveKind.RECV):
                continue
            root = nranks // 2 if kind.is_rooted else -1
            for in_place in (False, True):
                request = PlanRequest(kind, nranks, root, in_place)
                for planner in candidates(request):
                    yield planner.plan(request)


def score(schedules: Iterable[Schedule], per_kind: int, *, confirm: bool = True) -> dict[str, Score]:
    """Mutate every schedule in every way and judge the verifier.

    Parameters
    ----------
    schedules
        Right ones; a wrong one among them raises ``ValueError``.
    per_kind
        Mutants of each kind made from each schedule, at most.
    confirm
        Whether to look for rejections that brute force does not confirm.
    """
    scores = {kind: Score() for kind in KINDS}
    for index, original in enumerate(schedules):
        if verify(original):
            raise ValueError(f"schedule {original.name!r} of the corpus is wrong: {verify(original)[0]}")
        for kind, total in scores.items():
            for mutant in mutants(original, kind, per_kind, seed=index):
                _judge(total, kind, mutant, confirm=confirm)
    return scores


def _judge(total: Score, kind: str, mutant: Schedule, *, confirm: bool) -> None:
    total.made += 1
    found = verify(mutant)
    if found:
        total.killed += 1
        total.codes[found[0].code] += 1
        if confirm and {d.code for d in found} <= _PROVABLE and fails_under(mutant) is None:
            total.unconfirmed.append((str(found[0]), mutant))
        return
    fault = fails_under(mutant)
    if fault is not None:
        total.survivors.append((fault, mutant))
    elif mutant.kind is CollectiveKind.BARRIER and kind not in ("swap neighbours", "swap far apart"):
        total.equivalent[_BARRIER] += 1
    else:
        total.equivalent[_REASONS.get(kind, _OTHER)] += 1


def _table(scores: dict[str, Score]) -> Iterator[str]:
    head = (
        f"{'mutation':<24}{'mutants':>9}{'killed':>9}{'equivalent':>12}{'survivors':>11}{'unconfirmed':>13}"
    )
    yield head
    yield "-" * len(head)
    for kind, s in scores.items():
        same = s.equivalent.total()
        yield f"{kind:<24}{s.made:>9}{s.killed:>9}{same:>12}{len(s.survivors):>11}{len(s.unconfirmed):>13}"
    made, killed = sum(s.made for s in scores.values()), sum(s.killed for s in scores.values())
    same = sum(s.equivalent.total() for s in scores.values())
    alive = sum(len(s.survivors) for s in scores.values())
    unsure = sum(len(s.unconfirmed) for s in scores.values())
    yield f"{'all':<24}{made:>9}{killed:>9}{same:>12}{alive:>11}{unsure:>13}"
    share = 100.0 * killed / (made - same) if made > same else 100.0
    yield f"\nmutation score {share:.2f} %: killed / (mutants - equivalent)"
    codes = sum((s.codes for s in scores.values()), Counter[str]())
    yield "killed by " + ", ".join(f"{code} {n}" for code, n in sorted(codes.items()))
    yield "\nequivalent, by reason"
    for kind, s in scores.items():
        for reason, n in sorted(s.equivalent.items()):
            yield f"{n:>9}  {kind}: {reason}"
    for label, attribute in (("survivor", "survivors"), ("unconfirmed", "unconfirmed")):
        for kind, s in scores.items():
            for fault, mutant in getattr(s, attribute):
                what = f"{mutant.name} {mutant.kind.label} on {mutant.nranks} ranks"
                yield f"{label}: {kind} of {what}{', in place' if mutant.in_place else ''}: {fault}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0 when no mutant survives unexplained, else 1."""
    parser = argparse.ArgumentParser(prog="python -m pycomm.testing.mutation", description=__doc__)
    parser.add_argument(
        "--per-kind", type=int, default=2, help="mutants of each kind and schedule (default 2)"
    )
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[2, 3, 5], help="sizes of the schedules (default 2 3 5)"
    )
    parser.add_argument(
        "--no-confirm", action="store_true", help="do not run rejected mutants by brute force"
    )
    options = parser.parse_args(arguments)
    scores = score(corpus(options.ranks), options.per_kind, confirm=not options.no_confirm)
    sys.stdout.writelines(f"{line}\n" for line in _table(scores))
    return 1 if any(s.survivors for s in scores.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
