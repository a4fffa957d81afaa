"""What only a real GPU can tell: graphs, streams, waiting, threads, and several devices.

That every op is right there, at every shape, dtype and activation, the other tests see through the ``device`` fixture.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cuda_calls import (
    CALLS,
    Call,
    assert_agree,
    assert_same,
    attacked,
    captured,
    every_call,
    every_dtype,
    labels,
    one_head_and_three,
    problem,
)
from problems import LAYOUTS, Problem
from tolerance import LOW_PRECISION
from torch import Tensor

import benign_kernels as bk

pytestmark = pytest.mark.gpu

# A quarter of a second on a GPU of 2 GHz: far longer than Python needs to enqueue a call.
SLEEP_CYCLES = 500_000_000


def overwrite(p: Problem, numbers: Problem) -> None:
    for name, t in p.tensors().items():
        t.copy_(numbers.tensors()[name])


# ---- graphs ----------------------------------------------------------------------------------------------------------


@every_call
@every_dtype
@one_head_and_three
def test_a_graph_follows_its_inputs(shape: dict[str, Any], dtype: torch.dtype, call: Call) -> None:
    p = problem(dtype, **shape)
    graph, outputs = captured(lambda: call(p))
    for seed in (1, 2):
        other = problem(dtype, **shape, seed=seed)
        overwrite(p, other)
        graph.replay()
        assert_same(outputs, call(other))


def test_restarts_in_a_graph_draw_anew() -> None:
    p = problem()
    graph, (x, _, margin) = captured(lambda: attacked(bk.l2_pgd, restarts=3, keep="worst")(p))
    graph.replay()
    first = x.clone()
    assert (margin <= attacked(bk.l2_pgd, keep="worst")(p)[2]).all()
    graph.replay()
    assert not torch.equal(x, first)


# ---- streams, waiting, threads ---------------------------------------------------------------------------------------


@every_call
@one_head_and_three
def test_a_call_queues_on_the_current_stream_and_returns(shape: dict[str, Any], call: Call) -> None:
    """The inputs are written late on that stream: on any other the call would see ones."""
    p = problem(**shape)
    want, late, stream = call(p), p.map(torch.ones_like), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        call(late)  # takes the memory for this stream, for which the driver may wait
        torch.cuda.synchronize()
        torch.cuda._sleep(SLEEP_CYCLES)
        overwrite(late, p)
        got = call(late)
        returned_first = not stream.query()
    torch.cuda.synchronize()
    assert_same(got, want)
    assert returned_first


NEVER_WAITING = {**CALLS, "restarts": attacked(bk.l2_pgd, restarts=3)}


@pytest.mark.parametrize("call", NEVER_WAITING.values(), ids=NEVER_WAITING.keys())
@one_head_and_three
def test_torch_is_not_made_to_wait(shape: dict[str, Any], call: Call) -> None:
    p = problem(**shape)
    call(p)
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(p)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_new_thread_gets_the_same() -> None:
    """The CUDA runtime linked into the library has a current device of its own in each thread."""
    p, found = problem(), {}
    thread = threading.Thread(target=lambda: found.update({name: call(p) for name, call in CALLS.items()}))
    thread.start()
    thread.join()
    for name, call in CALLS.items():
        assert_same(found[name], call(p))


# ---- devices ---------------------------------------------------------------------------------------------------------

two_devices = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@two_devices
@every_call
def test_a_call_runs_where_its_inputs_are(call: Call) -> None:
    with torch.cuda.device(0):
        p = problem(torch.float64)
        found = call(p.to("cuda:1"))
        assert torch.cuda.current_device() == 0
        assert torch.ones(3, device="cuda").add(1).tolist() == [2.0, 2.0, 2.0]
        want = call(p)
    assert all(got.device == torch.device("cuda:1") for got in found)
    assert_agree(found, want)


@two_devices
def test_two_cuda_devices_do_not_mix() -> None:
    p = problem().to("cuda:0")
    with pytest.raises(ValueError, match=r"^W: is on cuda:1, expected cuda:0"):
        bk.two_layer(p.x, p.W.to("cuda:1"), p.a)


@pytest.mark.parametrize("name", ["y", "W", "a", "bias", "head_bias", "radius", "step", "start"])
def test_the_devices_of_an_attack_must_agree(name: str) -> None:
    p = problem()
    sizes = torch.ones(70, device="cuda")
    given = {"W": p.W, "a": p.a, "bias": p.bias, "head_bias": p.head_bias, "y": labels(p), "start": p.x}
    given |= {"radius": sizes, "step": sizes}
    with pytest.raises(ValueError, match=rf"^{name}: is on cpu, expected cuda:\d"):
        bk.l2_pgd(p.x, **{**given, name: given[name].cpu()})


@pytest.mark.parametrize("name", ["origin", "grad", "radius", "step"])
def test_the_devices_of_a_step_must_agree(name: str) -> None:
    x = torch.ones(70, 33, device="cuda")
    given = {"origin": x, "grad": x, "radius": x[:, 0], "step": x[:, 0]}
    with pytest.raises(ValueError, match=rf"^{name}: is on cpu, expected cuda:\d"):
        bk.l2_pgd_step(x, **{**given, name: given[name].cpu()})


# ---- values that are not read ----------------------------------------------------------------------------------------

INVALID = [(None, "y", 0.5), (None, "y", torch.nan), (3, "y", 3), (3, "y", -1)]
INVALID += [(None, name, value) for name in ("radius", "step") for value in (-1.0, torch.nan)]


@pytest.mark.parametrize("attack", [bk.l2_pgd, bk.linf_pgd])
@pytest.mark.parametrize(("heads", "name", "value"), INVALID)
def test_an_invalid_value_spoils_its_row_of_an_attack(
    attack: Callable[..., Any], heads: int | None, name: str, value: float
) -> None:
    p = problem(heads=heads)
    sizes = torch.full((70,), 0.5, device="cuda")
    given = {"y": labels(p), "radius": sizes, "step": sizes / 4}
    plain = attack(p.x, W=p.W, a=p.a, **given)
    given[name] = given[name].clone()
    given[name][3] = value
    found = attack(p.x, W=p.W, a=p.a, **given)
    others = torch.arange(70, device="cuda") != 3
    for output in ("x", "logits", "margin"):
        assert getattr(found, output)[3].isnan().all()
        assert torch.equal(getattr(found, output)[others], getattr(plain, output)[others])
    assert found.success[3]


@pytest.mark.parametrize("step", [bk.l2_pgd_step, bk.linf_pgd_step])
@pytest.mark.parametrize("name", ["radius", "step"])
@pytest.mark.parametrize("value", [-1.0, torch.nan])
def test_an_invalid_size_spoils_its_row_of_a_step(step: Callable[..., Tensor], name: str, value: float) -> None:
    p = problem()
    given = {"radius": torch.ones(70, device="cuda"), "step": torch.ones(70, device="cuda")}
    plain = step(p.x, p.x, p.x, **given)
    given[name][3] = value
    found = step(p.x, p.x, p.x, **given)
    others = torch.arange(70, device="cuda") != 3
    assert found[3].isnan().all()
    assert torch.equal(found[others], plain[others])


# ---- the same bits ---------------------------------------------------------------------------------------------------


@every_call
@every_dtype
def test_runs_agree_bit_for_bit(dtype: torch.dtype, call: Call) -> None:
    p = problem(dtype, n=700, d=130, m=2100)
    first = call(p)
    for _ in range(5):
        assert_same(call(p), first)


@every_call
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
@one_head_and_three
def test_the_layout_of_the_inputs_changes_no_bit(
    shape: dict[str, Any], dtype: torch.dtype, layout: Callable[[Tensor], Tensor], call: Call
) -> None:
    p = problem(dtype, **shape)
    assert_same(call(p.map(layout)), call(p))


# ---- compilers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_code_follows_its_inputs(mode: str) -> None:
    """In the second mode, as one CUDA graph that torch captures."""
    pytest.importorskip("triton", reason="torch.compile needs triton on CUDA")

    def robust(x: Tensor, y: Tensor, W: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        f, g = bk.two_layer_value_and_grad(x, W, a, cotangent=y)
        start = bk.l2_pgd_step(x, x, -g, step=0.1, radius=0.5)
        found = bk.l2_pgd(x, y, W, a, radius=0.5, steps=5, start=start, keep="worst")
        return f * y, found.x, found.margin, found.success.float().mean()

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(robust, fullgraph=True, mode=mode)
    try:
        for seed in range(4):  # the graph is captured by the second call and replayed from the third on
            p = problem(seed=seed)
            arguments = (p.x, labels(p), p.W, p.a)
            torch.compiler.cudagraph_mark_step_begin()
            found = [output.clone() for output in compiled(*arguments)]
            for got, want in zip(found, robust(*arguments), strict=True):
                torch.testing.assert_close(got, want)
        assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0
    finally:
        torch._dynamo.reset()
