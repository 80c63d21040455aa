"""The settings of a server are checked."""

from __future__ import annotations

import pytest

from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.serve import ServeSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": 0},
        {"max_body": 1.5},
        {"timeout": -1},
        {"timeout": 0},
        {"log": "xml"},
        {"keys": "secret"},
        {"keys": ("",)},
        {"reload": 1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=next(iter(wrong))):
        ServeSettings(**wrong)
