"""wang24: trials together are those alone, and attack in the span as in R^d; claims are judged on planted records."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from test_experiments_images import idx
from test_experiments_report import dump, read

import benign_kernels as bk
from benign_kernels import experiments
from benign_kernels.experiments.wang24 import predictions, trials
from benign_kernels.experiments.wang24.trials import Config
from benign_kernels.report import page, versions

SMALL = {"n": 12, "m": 6, "tests": 40, "iterations": 8, "steps": 4, "starts": 2, "step_size": 0.5}


def test_trials_together_are_those_alone():
    variations = [
        {},
        {"ratio": 0.0},
        {"d": 400, "signal": 3.0},
        {"noise_rate": 0.3},
        {"step_size": 0.1},
        {"ratio": 1.0},
    ]
    configs = [Config(**{**SMALL, **fields}) for fields in variations]
    assert len({trials.shape(config) for config in configs}) == 1
    together = trials.trials(configs, range(6))
    for seed, config in enumerate(configs):
        # Products of several networks round otherwise than those of one.
        assert together[seed] == pytest.approx(trials.trial(config, seed), rel=1e-5, abs=0)
    assert len({record["train_robust_loss"] for record in together}) == 6


def test_a_trial_touches_no_global_generator():
    before = torch.random.get_rng_state()
    assert trials.trial(Config(**SMALL), 1) == trials.trial(Config(**SMALL), 1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_records_are_those_of_the_public_functions():
    """Training and attack from the point once more, by `adversarial_train` with its defaults and `attack_model`."""
    config, seed = Config(**{**SMALL, "starts": 0, "ratio": 0.6}), 3
    problem, record = trials.sample(config, seed), trials.trial(config, seed)
    a = torch.tensor([1.0] * 3 + [-1.0] * 3) / math.sqrt(6)
    radius = 0.6 * 7.0
    options = {"radius": radius, "steps": 4}
    fit = bk.adversarial_train((problem.W, a), problem.x, problem.y, iterations=8, step_size=0.5 * 12 / 5000, **options)
    for name, x, y in (("train", problem.x, problem.y), ("test", problem.test_x, problem.test_y)):
        found = bk.attack_model(fit.net, x, y, keep="worst", **options)
        assert record[f"{name}_robust_error"] == pytest.approx(found.success.double().mean().item())
        assert record[f"{name}_error"] == pytest.approx((y * fit.net(x) <= 0).double().mean().item())
    assert record["test_error"] <= record["test_robust_error"] <= record["test_certified_error"]


def test_random_starts_in_the_span_are_those_of_all_dimensions():
    """Margins after an attack in r + 1 coordinates, and after the same attack in R^d."""
    generator = torch.Generator().manual_seed(0)
    n, d, m, budget = 5, 40, 4, 2.0
    options = {"dtype": torch.float64, "generator": generator}
    x, W, a = torch.randn(n, d, **options), torch.randn(m, d, **options), torch.randn(m, **options)
    y = torch.randn(n, **options).sign()
    span = bk.reduce_to_span(x, W)
    direction = torch.nn.functional.normalize(torch.randn(n, d, **options), dim=-1)
    offset = budget * torch.rand(n, 1, **options) ** (1 / d) * direction
    attack = {"radius": budget, "steps": 6, "keep": "worst"}
    whole = bk.l2_pgd(x, y, W, a, start=x + offset, **attack)
    points, weights = (torch.nn.functional.pad(span.reduce(t), (0, 1)) for t in (x, W))
    reduced = torch.cat([span.reduce(offset), span.residual(offset).unsqueeze(-1)], -1)
    found = bk.l2_pgd(points, y, weights, a, start=points + reduced, **attack)
    torch.testing.assert_close(found.margin, whole.margin, rtol=1e-10, atol=1e-10)


def test_random_starts_are_uniform_in_the_ball_of_all_dimensions():
    count, rank, outside, budget = 20_000, 3, 5, 2.0
    attack = trials._Attack(Config(), torch.tensor([budget]), rank, [outside], [torch.Generator().manual_seed(0)])
    offsets = attack._offsets(count)[0].double() / budget
    norm = offsets.norm(dim=-1)
    error = 4 / math.sqrt(12 * count)  # four standard errors of the mean of a uniform number
    assert (norm**8).mean().item() == pytest.approx(0.5, abs=error)
    share = offsets.square() / norm.square().unsqueeze(-1)
    spread = 4 * math.sqrt(share.var(0).max().item() / count)
    assert share.mean(0).tolist() == pytest.approx([1 / 8] * 3 + [5 / 8], abs=spread)


def test_a_network_that_fits_after_no_step_is_told_from_one_that_never_does():
    errors = torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 0.5], [0.1, 0.0, 0.5]])
    assert trials._first_zero(errors).tolist() == [0, 1, 3]


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def image_files(tmp_path):
    """20 images of class 4 and 20 of class 9, brighter in different halves."""
    random = np.random.default_rng(0)
    kinds = np.array([4, 9] * 20, np.uint8)
    pixels = random.integers(0, 100, (40, 4, 4), dtype=np.uint8)
    pixels[kinds == 4, :2] += 100
    (tmp_path / "x").write_bytes(idx(pixels))
    (tmp_path / "y").write_bytes(idx(kinds))
    return {"data": "images", "images": str(tmp_path / "x"), "labels": str(tmp_path / "y"), "classes": "4,9"}


def test_images_are_centred_and_scaled(image_files):
    config = Config(**{**SMALL, **image_files, "noise_rate": 0.0})
    problem = trials.sample(config, 0)
    assert problem.x.shape == (12, 16)
    assert problem.test_x.shape == (28, 16)
    assert problem.outside == 0
    assert problem.x.mean(0).abs().max() < 1e-5
    assert problem.x.square().sum(1).mean().item() == pytest.approx(16, rel=1e-5)
    means = [problem.x[problem.y == sign].mean(0) for sign in (1, -1)]
    assert problem.signal == pytest.approx((means[0] - means[1]).norm().item() / 2, rel=1e-5)
    record = trials.trial(dataclasses.replace(config, iterations=50), 0)
    assert record["test_error"] == 0
    assert record["budget"] == pytest.approx(0.1 * problem.signal)
    with pytest.raises(ValueError, match="n: got 40, expected fewer than the 40 images of classes 4,9"):
        trials.sample(dataclasses.replace(config, n=40), 0)


def test_what_counts_for_nothing_does_not_tell_trials_apart():
    assert Config(images="a", labels="b", classes="5,6") == Config()
    assert Config(slope=0.3) == Config()
    assert dataclasses.replace(Config(), activation="leaky_relu").slope == 0.1
    assert Config(slope=0.3, activation="leaky_relu") != Config(slope=0.2, activation="leaky_relu")
    assert Config(data="images", d=7, signal=3.0) == Config(data="images")
    assert Config(data="images", classes="5,6") != Config(data="images")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, "n: got 0, expected an integer ≥ 1"),
        ({"d": 0}, "d: got 0, expected an integer ≥ 1"),
        ({"m": 7}, "m: got 7, expected an even number"),
        ({"starts": -1}, "starts: got -1, expected an integer ≥ 0"),
        ({"noise_rate": 0.6}, "noise_rate: got 0.6, expected a number from 0 to 0.5"),
        ({"ratio": math.inf}, "ratio: got inf, expected a number from 0"),
        ({"ratio": math.nan}, "ratio: got nan, expected a number from 0"),
        ({"activation": "tanh"}, "activation: got 'tanh', expected one of relu, leaky_relu, smooth_leaky_relu"),
        ({"data": "noise"}, "data: got 'noise', expected one of mixture, images"),
        ({"data": "images", "images": "/no", "labels": "/no"}, "images: got '/no', expected a file that is there"),
        ({"data": "images", "images": __file__}, "images, labels: got '.*' and '', expected both files or neither"),
        ({"data": "images", "images": __file__, "labels": __file__}, "IDX file: .* begins with '22 22 22"),
        ({"data": "images", "classes": "0"}, "classes: got '0', expected two different numbers"),
        ({"data": "images", "classes": "1,1"}, "classes: got '1,1', expected two different numbers"),
    ],
)
def test_configurations_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(**fields)


# ---- claims ----------------------------------------------------------------------------------------------------------


def paper_like(config):
    """A record as the paper would have it."""
    images = config.data == "images"
    return {
        "train_error": 0.0,
        "train_robust_error": 0.0 if config.d >= 1000 or images else 0.2,
        "test_error": config.noise_rate,
        "test_robust_error": 0.01 if images else predictions.robust(config) + 0.01 * (not config.adversarial),
        "test_certified_error": 1.0,
        "train_robust_loss": 0.1,
        "interpolation": 1 + math.ceil(0 if images else config.load),
        "budget": config.signal * config.ratio,
    }


def planted(change=lambda config, record: None, preset="quick", seeds=5):
    """Records of a whole preset; ``change`` alters the paper-like record of a configuration and seed."""
    plan = experiments.Plan.of(experiments.get("wang24"), preset, seeds=range(seeds))
    rows = []
    for task in plan.tasks():
        record = paper_like(task.config)
        change(task, record)
        rows.append(experiments.Row(task.config, task.seed, record))
    return experiments.Records(rows, plan.sweeps)


def outcomes(records):
    return {claim.name: experiments.judge(claim, records) for claim in experiments.get("wang24").claims}


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_records_as_the_paper_would_have_them_hold_every_claim(preset):
    assert {name: verdict.outcome for name, verdict in outcomes(planted(preset=preset)).items()} == {
        claim.name: "yes" if claim.question else "holds" for claim in experiments.get("wang24").claims
    }


def setting(name, value, where):
    def change(task, record):
        if where(task.config):
            record[name] = value(record[name], task) if callable(value) else value

    return change


BREAKING = {
    "W1a": setting("train_robust_error", 0.01, lambda c: c.ratio == 0.1),
    "W1b": setting("test_error", 0.13, lambda c: c.ratio == 0.1),
    "W1c": setting("test_robust_error", 0.14, lambda c: c.ratio == 0.1),
    "W2a": setting("test_error", 0.07, lambda c: c.ratio == 0.2),
    "W2b": setting("test_robust_error", 0.2, lambda c: c.ratio == 0.8),
    "W2c": setting("test_robust_error", 0.44, lambda c: c.ratio > 1),
    "W2d": setting("train_robust_error", 0.01, lambda c: c.ratio == 0.4),
    "W3": setting("test_robust_error", 0.05, lambda c: c.ratio == 0.3),
    "W4a": setting("test_robust_error", 0.2, lambda c: c.ratio == 0.4),
    "W4b": setting("train_robust_error", 0.0, lambda c: c.d == 300),
    "W5a": setting("test_error", 0.15, lambda c: c.d == 30_000),
    "W5b": setting("test_robust_error", 0.15, lambda c: c.d == 30_000),
    "W6": setting("interpolation", 5, lambda c: True),
    "W7a": setting("test_error", 0.35, lambda c: c.noise_rate == 0.3),
    "W7b": setting("test_error", lambda error, task: error + 0.06 * (error >= 0.25), lambda c: True),
    "W8": setting("test_robust_error", 0.9, lambda c: c.activation == "smooth_leaky_relu"),
    "W9": setting("test_robust_error", lambda error, task: error + 0.06, lambda c: c.m in (100, 64)),
    "W10": setting("test_robust_error", lambda error, task: error - 0.02, lambda c: not c.adversarial),
    "W11a": setting("train_robust_error", 0.01, lambda c: c.data == "images"),
    "W11b": setting("test_robust_error", 0.03, lambda c: c.data == "images"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_claim_fails_where_every_seed_breaks_it(name):
    verdict = outcomes(planted(BREAKING[name]))[name]
    assert verdict.outcome == ("no" if verdict.claim.question else "fails")


@pytest.mark.parametrize("name", [n for n in BREAKING if n not in ("W1a", "W2b", "W3", "W4b", "W11a")])
def test_a_claim_is_undecided_where_one_seed_of_two_breaks_it(name):
    """But those that no seed may break: they fail."""

    def change(task, record):
        if task.seed == 0:
            BREAKING[name](task, record)

    assert outcomes(planted(change, seeds=2))[name].outcome == "undecided"


def test_a_claim_without_its_trials_is_untested():
    assert {verdict.outcome for verdict in outcomes(experiments.Records([])).values()} == {"untested"}


def test_there_is_a_record_to_break_for_every_claim():
    assert list(BREAKING) == [claim.name for claim in experiments.get("wang24").claims]


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_a_browser_shows_the_report(tmp_path):
    pytest.importorskip("matplotlib")
    plan = experiments.Plan.of(experiments.get("wang24"), seeds=range(2))
    html = page(plan, planted(seeds=2), command="benign report wang24", versions=versions(), seconds=1.0)
    assert "://" not in html
    assert read(html).tags.count("figure") == len(plan.experiment.figures)
    shown = dump(html, tmp_path)
    assert shown.count("<figcaption>") == len(plan.experiment.figures)
    assert shown.count('<span class="holds">holds</span></td>') == len(plan.experiment.claims) - 2
    assert shown.count('<span class="yes">yes</span></td>') == 2


def test_no_figure_is_empty_and_none_breaks_on_few_records():
    pytest.importorskip("matplotlib")
    experiment = experiments.get("wang24")
    whole = planted(seeds=2)
    one = experiments.Plan.of(experiment, overrides={"d": 500, "ratio": 0.2}, seeds=[0])
    few = experiments.Records([experiments.Row(t.config, 0, paper_like(t.config)) for t in one.tasks()], one.sweeps)
    for figure in experiment.figures:
        svg = experiments.figures.render(figure, whole, "svg")
        assert svg
        assert b"data:image" not in svg  # the page's policy would not show it
        assert experiments.figures.render(figure, few, "svg")
        assert experiments.figures.render(figure, experiments.Records([]), "svg") is None
