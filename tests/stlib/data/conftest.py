"""A small category on disk that tests spoil."""

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path, make_category) -> Path:
    """A faultless dataset with one category, 'plate': 3 + (2 good, 2 turned, 1 a_first) images, side 64."""
    return make_category(tmp_path, train=3, good=2, defects={"turned": 2, "a_first": 1})
