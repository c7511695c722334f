"""Distances to remembered features, against the plain formula."""

import torch

from stlib.nn import memory
from stlib.nn.memory import nearest_distances


def test_the_nearest_distances_are_those_of_all_pairs_whatever_the_size_of_a_product(monkeypatch):
    random = torch.Generator().manual_seed(0)
    queries, bank = (torch.randn(2, count, 7, generator=random) for count in (5, 11))
    expected = torch.cdist(queries, bank).amin(dim=-1)
    for chunk in (1, 4, 100):
        monkeypatch.setattr(memory, "CHUNK", chunk)
        torch.testing.assert_close(nearest_distances(queries, bank), expected)
    assert (
        nearest_distances(queries, queries).amax() < 1e-2
    )  # rounding, and never the root of a negative number
