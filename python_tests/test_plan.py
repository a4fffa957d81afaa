"""The planner: what it counts, what it refuses, and that its answer is a plain value."""

import copy
import pickle

import pytest
import torch

from benign_kernels.activation import LeakyReLU
from benign_kernels.plan import Plan, plan

SIZES = {"n": 100, "d": 10_000, "m": 500}


def test_counts_two_products_per_step_and_one_forward_pass():
    flops = [plan(**SIZES, steps=steps, algorithm="dense").flops for steps in (0, 1, 2, 20)]
    product = 2 * 100 * 500 * 10_000
    assert flops[0] == pytest.approx(product, rel=1e-2)
    assert flops[1] - flops[0] == pytest.approx(2 * product, rel=1e-2)
    assert flops[2] - flops[1] == flops[1] - flops[0]
    assert flops[3] == pytest.approx(41 * product, rel=1e-2)


@pytest.mark.parametrize("name", ["n", "m", "patches", "networks"])
def test_work_is_proportional_to_rows_and_neurons(name):
    sizes = {**SIZES, "patches": 1, "networks": 1}
    doubled = {**sizes, name: 2 * sizes[name]}
    flops = [plan(**each, algorithm="dense").flops for each in (doubled, sizes)]
    assert flops[0] == pytest.approx(2 * flops[1], rel=1e-2)


def test_smooth_activations_cost_more_than_piecewise_linear_ones():
    thin = {"n": 100, "d": 2, "m": 500}
    assert plan(**thin, activation="gelu").flops > plan(**thin, activation=LeakyReLU(0.2)).flops


def test_narrow_weights_move_fewer_bytes():
    large = {"n": 10, "d": 100_000, "m": 1000}
    moved = [
        plan(**large, dtype=dtype, algorithm="dense").bytes for dtype in (torch.bfloat16, torch.float32, torch.float64)
    ]
    assert moved == sorted(moved)
    assert moved[0] < moved[1] < moved[2]


def test_empty_problems_cost_nothing():
    assert plan(**{**SIZES, "n": 0}).flops == 0
    assert plan(**SIZES, networks=0).flops == 0
    assert plan(**{**SIZES, "m": 0}).flops < plan(**{**SIZES, "m": 5}).flops


def test_sizes_beyond_int32_are_counted():
    assert plan(n=2**40, d=2**20, m=2**20, steps=1000, algorithm="dense").flops > 1e26


def test_reason_is_one_sentence_with_the_numbers():
    reason = plan(**SIZES, patches=3, steps=7).reason
    for part in ("gram", "the time of half_sparse", "7 steps", "n=100", "P=3", "m=500", "d=10000", "FLOP"):
        assert part in reason
    assert reason.endswith(".")


def test_plan_is_a_value():
    result = plan(**SIZES)
    assert isinstance(result, Plan)
    assert copy.deepcopy(result) == pickle.loads(pickle.dumps(result)) == result == plan(**SIZES)
    assert repr(result).startswith("Plan(algorithm='gram'")


def test_named_algorithm_is_taken():
    assert plan(**SIZES, algorithm="dense").algorithm == "dense"
    assert plan(**SIZES, device=torch.device("cuda", 3), algorithm="dense").algorithm == "dense"


@pytest.mark.parametrize("name", ["span", "", "Dense"])
def test_unknown_algorithm_names_the_known(name):
    with pytest.raises(ValueError, match=f"algorithm: got '{name}', expected one of 'auto', 'dense', 'half_sparse', "):
        plan(**SIZES, algorithm=name)


@pytest.mark.parametrize(
    ("name", "given", "obstacle"),
    [
        ("gram", {"box": True}, "knows no box, expected one of 'auto', 'dense', 'half_sparse'$"),
        ("gram", {"trajectory": True}, "has no trajectory"),
        ("gram", {"norm": "linf"}, "is for l2 attacks, expected one of 'auto', 'dense'$"),
        ("half_sparse", {"device": "cuda", "norm": "linf"}, "is for l2 attacks, expected one of 'auto', 'dense'$"),
        ("half_sparse", {"heads": 3}, "is for networks of one head, expected one of 'auto', 'dense', 'gram'$"),
        ("half_sparse", {"activation": "tanh"}, "needs a piecewise-linear activation"),
    ],
)
def test_an_algorithm_that_does_not_apply_says_why(name, given, obstacle):
    with pytest.raises(ValueError, match=f"^algorithm: got '{name}', which {obstacle}"):
        plan(**SIZES, **given, algorithm=name)
    assert plan(**SIZES, **given).algorithm != name


def test_each_algorithm_has_its_regime():
    assert plan(n=100, d=10_000, m=500).algorithm == "gram"  # m ≪ d
    for device in ("cpu", "cuda"):
        assert plan(n=256, d=100, m=65_536, device=device).algorithm == "half_sparse"  # m ≫ d
        assert plan(n=256, d=100, m=65_536, activation="tanh", device=device).algorithm == "dense"
        assert plan(n=2000, d=3072, m=1024, activation="tanh", device=device).algorithm == "gram"
    assert plan(n=100, d=1000, m=500, activation="tanh").algorithm == "gram"
    assert plan(n=4, d=1000, m=5000, steps=1).algorithm != "gram"  # G would cost more than the attack


def test_what_is_known_or_not_asked_for_costs_nothing():
    sizes = {**SIZES, "algorithm": "gram"}
    product, gram = 2 * 100 * 500 * 10_000, 500 * 500 * 10_000
    assert plan(**sizes).flops - plan(**sizes, gram=True).flops == pytest.approx(gram)
    assert plan(**sizes).flops - plan(**sizes, need="margin").flops == pytest.approx(product)
    assert plan(**sizes, start=True).flops - plan(**sizes).flops == pytest.approx(product)


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
    switches = dict.fromkeys(("box", "trajectory", "start", "gram"), False) | {"l2": True, "need_x": True}
    with pytest.raises(ValueError, match="patches: got 0"):
        _host.plan(**sizes, **switches, piecewise_linear=True, item_size=4, cuda=False, algorithm="auto")
