import pytest


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread):
    """Every module of this room samples pictures, so each runs on one thread."""
