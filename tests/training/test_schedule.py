"""The learning-rate schedule: computed by hand, and compared with torch's scheduler."""

import pytest
import torch

from makermark.training.loop import learning_rate


def test_learning_rate_matches_values_computed_by_hand():
    settings = {"peak": 1.0, "warmup_steps": 4, "total_steps": 12}
    assert learning_rate(0, **settings) == pytest.approx(0.125)
    assert learning_rate(3, **settings) == pytest.approx(0.875)
    around_the_middle = learning_rate(7, **settings) + learning_rate(8, **settings)
    assert around_the_middle == pytest.approx(1.0)
    assert 0 < learning_rate(11, **settings) < 0.02


def test_learning_rate_without_warmup_is_the_cosine_of_torch_at_the_middle_of_each_step():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)  # half steps
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    ours = [learning_rate(step, peak=0.3, warmup_steps=0, total_steps=20) for step in range(20)]
    assert ours == pytest.approx(rates[1::2])
