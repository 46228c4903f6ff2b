"""The pool budget refuses wide sessions before threads run away."""

from __future__ import annotations

import pytest

from coinfer.backends.pools import PoolBudget
from coinfer.errors import BackendError


def fill(budget: PoolBudget, threads: int) -> int:
    count = 0
    while count < 1000:
        try:
            budget.reserve(threads, what="x")
        except BackendError:
            return count
        count += 1
    return count


def test_a_process_holds_at_most_sixteen_small_pool_threads() -> None:
    assert fill(PoolBudget(), 1) == 16


def test_a_large_machine_gets_four_pools_of_its_size() -> None:
    assert fill(PoolBudget(), 63) == 4


def test_released_threads_can_be_taken_again() -> None:
    budget = PoolBudget()
    fill(budget, 8)
    full = budget.in_use
    budget.release(8)
    budget.reserve(8, what="x")
    assert budget.in_use == full


def test_the_refusal_names_the_session_and_the_remedy() -> None:
    budget = PoolBudget()
    fill(budget, 1)
    with pytest.raises(BackendError, match=r"^model 'a' on processor 'p'.*1-thread processors"):
        budget.reserve(1, what="model 'a' on processor 'p'")


def test_a_session_without_a_pool_is_never_refused() -> None:
    budget = PoolBudget()
    fill(budget, 1)
    budget.reserve(0, what="x")
    assert budget.in_use == 16
