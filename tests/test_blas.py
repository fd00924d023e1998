"""BLAS, held to one thread by all who divide work over the cores."""

from contextlib import ExitStack

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinytransformer.workers import one_thread_of_blas


def threads():
    """How many threads BLAS has; an empty set where it is one that cannot be told."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.skipif(not threads(), reason="this BLAS cannot be told how many threads to have")
def test_it_is_given_back_by_the_last_who_held_it():
    """Whoever began first may end first; the second must not take one thread for what BLAS had before."""
    with threadpool_limits(limits=2, user_api="blas"), ExitStack() as first, ExitStack() as second:
        first.enter_context(one_thread_of_blas())
        second.enter_context(one_thread_of_blas())
        first.close()
        assert threads() == {1}
        second.close()
        assert threads() == {2}
