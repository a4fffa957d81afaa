"""chen21: the training is gradient descent on the robust loss, and the package's attack finds the closed form."""

import math

import pytest
import torch

import benign_kernels as bk
from benign_kernels import experiments, theory
from benign_kernels.experiments.chen21 import predictions, trials
from benign_kernels.experiments.chen21.trials import Config, as_network, sample, train

SMALL = {"d": 60, "n": 12, "tests": 40, "iterations": 30}


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
@pytest.mark.parametrize("budget", [0.0, 0.3])
def test_training_is_gradient_descent_on_points_that_the_package_attacks(loss, budget):
    """θ in R^d, every step by autograd through the identity network, at the points that `l2_pgd` finds."""
    data = sample(Config(**SMALL), 0)
    x, y = data.x.double(), data.y.double()
    value = {"logistic": lambda m: torch.nn.functional.softplus(-m), "exponential": lambda m: torch.exp(-m)}[loss]
    theta = torch.zeros(60, dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        W, a = as_network(theta, 6)
        attacked = bk.l2_pgd(x, y, W, a, activation="identity", radius=budget, steps=20).x
        mean = value(y * bk.two_layer(attacked, W, a, activation="identity")).mean()
        (slope,) = torch.autograd.grad(mean, theta)
        theta = (theta - 0.05 * slope).detach().requires_grad_()
    found = train(data.x, data.y, budget=budget, loss=loss, step_size=0.05, iterations=30)
    torch.testing.assert_close(found, theta.detach(), rtol=1e-9, atol=1e-12)


def test_many_problems_at_once_are_each_alone():
    problems = [sample(Config(**SMALL), seed) for seed in range(3)]
    options = {"budget": 0.1, "loss": "logistic", "step_size": 0.05, "iterations": 30}
    together = train(torch.stack([p.x for p in problems]), torch.stack([p.y for p in problems]), **options)
    for theta, problem in zip(together, problems, strict=True):
        torch.testing.assert_close(theta, train(problem.x, problem.y, **options), rtol=1e-12, atol=0)


def test_the_network_is_theta():
    theta, x = torch.randn(9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    for neurons in (1, 2, 7):
        W, a = as_network(theta, neurons)
        torch.testing.assert_close(bk.two_layer(x, W, a, activation="identity"), x @ theta)


def test_a_trial_is_pure_and_measures_what_it_says():
    config = Config(**{**SMALL, "tests": 4000, "budget": 0.5})
    before = torch.random.get_rng_state()
    one, two = trials.trial(config, 3), trials.trial(config, 3)
    assert one == two
    assert torch.equal(before, torch.random.get_rng_state())
    assert one != trials.trial(config, 4)
    error = 4 * math.sqrt(0.25 / 4000)
    assert one["test_error"] == pytest.approx(one["risk"], abs=error)
    assert one["test_robust_error"] == pytest.approx(one["robust_risk"], abs=error)
    assert one["attack_gap"] < 1e-3


def test_one_seed_has_the_same_labels_in_every_dimension():
    few, many = sample(Config(d=10), 5), sample(Config(d=300), 5)
    assert torch.equal(few.y, many.y)
    assert torch.equal(few.test_y, many.test_y)


@pytest.mark.parametrize("field", ["d", "n", "tests", "iterations", "neurons"])
def test_configurations_are_checked(field):
    with pytest.raises(ValueError, match=f"{field}: got 0, expected an integer ≥ 1"):
        Config(**{field: 0})
    with pytest.raises(ValueError, match=r"noise_rate: got 0.7, expected a number from 0 to 0.5"):
        Config(noise_rate=0.7)
    with pytest.raises(ValueError, match="loss: got 'hinge', expected one of 'logistic', 'exponential'"):
        Config(loss="hinge")


def test_the_formula_falls_from_its_turning_point_on():
    for exponent in (0.1, 0.2):
        turn = predictions.turning_dimension(Config(exponent=exponent))
        below, at, above = (
            theory.averaging_margin((f * turn) ** exponent, noise_rate=0.1, n=50, d=f * turn) for f in (0.8, 1.0, 1.25)
        )
        assert below < at > above
    assert math.isinf(predictions.turning_dimension(Config(exponent=0.3)))


def test_every_claim_speaks_of_the_presets():
    experiment = experiments.get("chen21")
    rows = []
    for preset in experiment.presets:
        plan = experiments.Plan.of(experiment, preset)
        made_up = {**trials.trial(Config(**SMALL), 0), "train_error": 0.0}
        rows = [experiments.Row(task.config, task.seed, made_up) for task in plan.tasks()]
        records = experiments.Records(rows, plan.sweeps)
        for claim in experiment.claims:
            assert experiments.judge(claim, records).places > 0, (preset, claim.name)


def test_no_figure_is_empty_and_none_breaks_on_few_records():
    pytest.importorskip("matplotlib")
    experiment = experiments.get("chen21")
    plan = experiments.Plan.of(experiment, overrides=SMALL, seeds=[0])
    rows = [experiments.Row(task.config, 0, trials.trial(task.config, 0)) for task in plan.tasks()]
    for figure in experiment.figures:
        assert experiments.figures.render(figure, experiments.Records(rows, plan.sweeps), "svg")
        assert experiments.figures.render(figure, experiments.Records([]), "svg") is None
