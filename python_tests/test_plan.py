"""The planner: what it counts, what it refuses, and that its answer is a plain value."""

import copy
import pickle

import pytest
import torch

from benign_kernels.activation import LeakyReLU
from benign_kernels.plan import Plan, plan

SIZES = {"n": 100, "d": 10_000, "m": 500}


def test_counts_two_products_per_step_and_one_forward_pass():
    flops = [plan(**SIZES, steps=steps).flops for steps in (0, 1, 2, 20)]
    product = 2 * 100 * 500 * 10_000
    assert flops[0] == pytest.approx(product, rel=1e-2)
    assert flops[1] - flops[0] == pytest.approx(2 * product, rel=1e-2)
    assert flops[2] - flops[1] == flops[1] - flops[0]
    assert flops[3] == pytest.approx(41 * product, rel=1e-2)


@pytest.mark.parametrize("name", ["n", "m", "patches", "networks"])
def test_work_is_proportional_to_rows_and_neurons(name):
    sizes = {**SIZES, "patches": 1, "networks": 1}
    doubled = {**sizes, name: 2 * sizes[name]}
    assert plan(**doubled).flops == pytest.approx(2 * plan(**sizes).flops, rel=1e-2)


def test_smooth_activations_cost_more_than_piecewise_linear_ones():
    thin = {"n": 100, "d": 2, "m": 500}
    assert plan(**thin, activation="gelu").flops > plan(**thin, activation=LeakyReLU(0.2)).flops


def test_narrow_weights_move_fewer_bytes():
    large = {"n": 10, "d": 100_000, "m": 1000}
    moved = [plan(**large, dtype=dtype).bytes for dtype in (torch.bfloat16, torch.float32, torch.float64)]
    assert moved == sorted(moved)
    assert moved[0] < moved[1] < moved[2]


def test_empty_problems_cost_nothing():
    assert plan(**{**SIZES, "n": 0}).flops == 0
    assert plan(**SIZES, networks=0).flops == 0
    assert plan(**{**SIZES, "m": 0}).flops < plan(**{**SIZES, "m": 5}).flops


def test_sizes_beyond_int32_are_counted():
    assert plan(n=2**40, d=2**20, m=2**20, steps=1000).flops > 1e26


def test_reason_is_one_sentence_with_the_numbers():
    reason = plan(**SIZES, patches=3, steps=7).reason
    for part in ("dense", "7 steps", "n=100", "P=3", "m=500", "d=10000", "FLOP"):
        assert part in reason
    assert reason.endswith(".")


def test_plan_is_a_value():
    result = plan(**SIZES)
    assert isinstance(result, Plan)
    assert copy.deepcopy(result) == pickle.loads(pickle.dumps(result)) == result == plan(**SIZES)
    assert repr(result).startswith("Plan(algorithm='dense'")


def test_named_algorithm_is_taken():
    assert plan(**SIZES, algorithm="dense").algorithm == "dense"
    assert plan(**SIZES, device=torch.device("cuda", 3)).algorithm == "dense"


@pytest.mark.parametrize("name", ["gram", "half_sparse", "span", "", "Dense"])
def test_unavailable_algorithm_names_the_available(name):
    with pytest.raises(ValueError, match=f"algorithm: got '{name}', expected one of 'auto', 'dense'"):
        plan(**SIZES, algorithm=name)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("n", -1, ValueError),
        ("n", 2.0, TypeError),
        ("d", "10", TypeError),
        ("m", 2**63, ValueError),
        ("patches", 0, ValueError),
        ("heads", 0, ValueError),
        ("steps", -1, ValueError),
        ("networks", -1, ValueError),
        ("activation", "swish", ValueError),
        ("dtype", torch.float16, TypeError),
        ("device", "mps", ValueError),
        ("device", "abacus", ValueError),
        ("device", 0, TypeError),
        ("algorithm", None, TypeError),
    ],
)
def test_refuses_in_one_sentence(argument, value, error):
    with pytest.raises(error, match=f"^{argument}: got .*expected"):
        plan(**{**SIZES, argument: value})


def test_native_side_checks_again():
    from benign_kernels import _host

    sizes = {"n": 1, "d": 1, "m": 1, "patches": 0, "heads": 1, "steps": 1, "networks": 1}
    with pytest.raises(ValueError, match="patches: got 0"):
        _host.plan(**sizes, piecewise_linear=True, item_size=4, cuda=False, algorithm="auto")
