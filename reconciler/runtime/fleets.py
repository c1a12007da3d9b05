"""Do the same on many targets: wave by wave, inside a wave in threads; knows nothing of what is done."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_Result = TypeVar("_Result")


def run_waves(
    waves: Sequence[Sequence[str]],
    work: Callable[[str], _Result],
    *,
    parallel: int,
    goes_on: Callable[[_Result], bool],
    begin: Callable[[int], object] = lambda _: None,
) -> tuple[dict[str, _Result], bool]:
    """Do something on every target, some at a time.

    Args:
        waves: Names of targets; a wave begins when the one before it is over.
        work: Does it on one target, in a thread of its own; raises nothing.
        parallel: How many targets are at work at once, at least 1.
        goes_on: Whether further targets may begin after this result. Those at work come to their end.
        begin: Hears of the number of each wave before it begins, from 0.

    Returns:
        Results by target, without those that were not reached; and whether an interrupt (Ctrl-C) stopped it.
    """
    results: dict[str, _Result] = {}
    is_interrupted = False
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="target") as pool:
        for number, wave in enumerate(waves):
            if is_interrupted or not all(map(goes_on, results.values())):
                break
            begin(number)
            waiting, at_work = list(reversed(wave)), dict[Future[_Result], str]()
            while waiting or at_work:
                try:
                    while waiting and len(at_work) < parallel:
                        name = waiting.pop()
                        at_work[pool.submit(work, name)] = name
                    ended = wait(at_work, return_when=FIRST_COMPLETED).done
                except KeyboardInterrupt:
                    if is_interrupted:
                        raise
                    is_interrupted = True
                    waiting.clear()
                    continue
                for future in ended:
                    result = results[at_work.pop(future)] = future.result()
                    if not goes_on(result):
                        waiting.clear()
    return results, is_interrupted
