"""The extra ``serve`` and a server for the tests of a module."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")


@pytest.fixture(scope="module")
def served():
    """Models, by name, as Python calls them."""
    from tests.serve.support import models

    return models()


@pytest.fixture(scope="module")
def port(served):
    """Port of a server of these models."""
    from tests.serve.support import serving

    with serving(served) as (number, _):
        yield number


@pytest.fixture
def client(port):
    """A connection to it."""
    from tests.serve.support import Client

    found = Client(port)
    yield found
    found.close()
