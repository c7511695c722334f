"""AAND's residual opens where its keys of anomalies say so."""

import pytest
import torch

from stlib.nn.amplification import Residual
from stlib.nn.losses import gate_loss


def test_a_gate_opens_for_what_resembles_the_keys_of_anomalies():
    part = Residual(8, 4, keys=4, temperature=0.2)
    level = torch.rand(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    query = part.query(level + part.position)
    with torch.no_grad():
        part.keys[4:] = query[0, :, 1, 2]
        part.keys[:4] = -query[0, :, 1, 2]
    added, gate = part(level)
    assert gate[0, 1, 2].item() == pytest.approx(torch.tensor(10.0).sigmoid().item())  # cosines 1 and -1
    torch.testing.assert_close(added, gate[:, None] * part.values(level).tanh() * level)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[1, 0] = True
    masked, same = part(level, mask)
    assert torch.equal(same, gate)
    assert masked[1, :, 0].abs().min() > 0
    assert masked[0].abs().max() == masked[1, :, 1:].abs().max() == 0


def test_a_gate_is_float32_in_bfloat16_so_that_a_confident_mistake_has_a_finite_loss():
    part = Residual(8, 4, keys=4, temperature=0.2)
    level = torch.rand(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        query = part.query(level + part.position).float()
        part.keys[4:], part.keys[:4] = query[0, :, 1, 2], -query[0, :, 1, 2]
        _, gate = part(level)
    assert gate.dtype == torch.float32
    assert gate_loss(gate, torch.zeros(1, 4, 4, dtype=torch.bool)).isfinite()
