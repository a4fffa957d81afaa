"""The losses of a training: accurate and finite however large the margin."""

import pytest
import torch

from benign_kernels._losses import LOSSES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["logistic", "exponential", "cross_entropy"])
def test_losses_and_their_derivatives_are_accurate_at_large_margins(loss, dtype):
    """Against float64's closed forms; eps·|m| is what an exponential makes of the rounding of its argument."""
    margin = torch.cat([torch.linspace(-59, 80, 140), torch.tensor([1e-6, 17.5, 20.5, 39.0, 41.0])]).to(dtype)
    m = margin.double()
    eps = torch.finfo(dtype).eps * (4 + m.abs())
    if loss == "cross_entropy":
        f, y = torch.stack([margin, torch.zeros_like(margin)], -1), torch.zeros(len(margin), dtype=torch.long)
    else:
        f, y = margin[:, None], torch.ones_like(margin)
    value, slope = LOSSES[loss].value(f, y), LOSSES[loss].cotangent(f, y)
    if loss == "exponential":
        want_value, want_slope = torch.exp(-m), -torch.exp(-m)
    else:
        want_value = torch.log1p(torch.exp(-m.abs())) + torch.relu(-m)
        want_slope = -torch.exp(-torch.relu(m)) / (1 + torch.exp(-m.abs())) * torch.exp(torch.relu(m) - m.clamp(min=0))
    assert ((value - want_value).abs() <= eps * want_value).all()
    assert ((slope[:, 0] - want_slope).abs() <= eps * want_slope.abs()).all()
    assert torch.equal(slope.sum(-1), torch.zeros_like(margin)) or loss != "cross_entropy"


def test_the_exponential_loss_stays_finite():
    f, y = torch.tensor([[-1e4], [-60.0], [1e4]]), torch.ones(3)
    assert LOSSES["exponential"].value(f, y).isfinite().all()
    torch.testing.assert_close(
        LOSSES["exponential"].cotangent(f, y)[:, 0], torch.tensor([-1.142e26, -1.142e26, 0]), rtol=1e-3, atol=0
    )
