"""Runs every op once on CUDA, on small shapes with odd edges, and compares with the CPU: the food of compute-sanitizer.

The sanitizers slow a kernel down a hundredfold, so the shapes are just large enough for several blocks, a partial tile
and a second pass of every loop.
"""

from __future__ import annotations

import torch

import benign_kernels as bk

# (n, d, m, patches, heads); 1s and sizes just above a power of two; and what fills a large device with large tiles.
SHAPES = [(1, 1, 1, 1, 1), (37, 65, 129, 1, 1), (5, 33, 70, 3, 4), (130, 7, 40, 1, 2), (1290, 9, 1290, 1, 1)]


def main() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for shape in SHAPES:
            for activation in ("relu", "gelu"):
                _compare(shape, dtype, activation)
    print("every op ran on CUDA and agrees with the CPU")


def _compare(shape: tuple[int, ...], dtype: torch.dtype, activation: str) -> None:
    results = [_run(shape, dtype, activation, torch.device(name)) for name in ("cpu", "cuda")]
    # Roomy, and 2^-6 for results stored in bfloat16: correctness is the tests' business.
    tolerance = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 2**-6}[dtype]
    for cpu, cuda in zip(*results, strict=True):
        scale = cpu.abs().max().clamp(min=1)
        torch.testing.assert_close(cuda.cpu() / scale, cpu / scale, rtol=tolerance, atol=tolerance)


def _run(shape: tuple[int, ...], dtype: torch.dtype, activation: str, device: torch.device) -> list[torch.Tensor]:
    n, d, m, patches, heads = shape
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(n)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x, origin = random(n, patches * d).to(compute).to(device), random(n, patches * d).to(compute).to(device)
    W, bias = random(m, d).to(dtype).to(device), random(m).to(dtype).to(device)
    a = (random(heads, m) if heads > 1 else random(m)).to(dtype).to(device)
    y = random(n).sign().to(compute) if heads == 1 else torch.arange(n) % heads
    cotangent = (random(n, heads) if heads > 1 else random(n)).to(dtype).to(device)
    given = {"bias": bias, "activation": activation, "patches": patches}

    narrow = x.to(dtype)
    f, gx = bk.two_layer_value_and_grad(narrow, W, a, cotangent=cotangent, **given)
    gradients = bk.two_layer_parameter_grad(narrow, W, a, cotangent=cotangent, **given)
    # Attacks walk in float32 against bfloat16 networks. One step from a common point: longer walks part ways at kinks.
    attack = bk.l2_pgd(x, y.to(device), W, a, radius=0.3, step=0.2, steps=1, keep="worst", **given)
    linf = bk.linf_pgd(x, y.to(device), W, a, radius=0.3, step=0.2, steps=1, box=(-4.0, 4.0), **given)
    # Of a gradient that both devices are given: a sign may differ where their own is all rounding.
    grad = random(n, patches * d).to(compute).to(device)
    steps = [step(x, origin, grad, step=0.5, radius=1.0) for step in (bk.l2_pgd_step, bk.linf_pgd_step)]
    outputs = [bk.two_layer(narrow, W, a, **given), f, gx, *gradients, attack.x, attack.margin, linf.logits, *steps]
    return [output.double() for output in outputs]


if __name__ == "__main__":
    main()
