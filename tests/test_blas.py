"""BLAS, held to one thread by all who divide work over the cores."""

from threadpoolctl import threadpool_info, threadpool_limits

from tinytransformer.workers import one_thread_of_blas


def test_blas_is_given_back_by_the_last_who_held_it():
    """Whoever began first may end first; the second must not take one thread for what BLAS had before."""

    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    with threadpool_limits(limits=2, user_api="blas"):
        first, second = one_thread_of_blas(), one_thread_of_blas()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}
