import numpy as np
import pytest

from study.maps import KeptMaps


@pytest.fixture
def kept():
    """Two images of side 8, the first with a defect."""
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 2:4, 2:4] = True
    rates = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 8, 8)
    images = np.full((2, 8, 8, 3), 120, np.uint8)
    layers = np.stack([rates] * 4, axis=1)
    return KeptMaps("stpm", "f" * 64, ("bent/000.png", "good/000.png"), images, masks, rates, layers)
