"""The store and the run of the tests of evaluation, which the front door opens."""

from tests.eval.conftest import finished_run, store

__all__ = ["finished_run", "store"]
