"""The span of a training, and mixtures drawn inside it: exact linear algebra, and the same law as in R^d."""

import math
import re

import pytest
import torch

import benign_kernels as bk


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- reduce_to_span --------------------------------------------------------------------------------------------------


def assert_orthonormal(basis, atol=1e-13):
    eye = torch.eye(basis.shape[-1], dtype=torch.float64)
    torch.testing.assert_close(basis.double().mT @ basis.double(), eye, atol=atol, rtol=0)


def test_the_basis_is_orthonormal_and_holds_every_point():
    x, W, v = normal(12, 300), normal(5, 300, seed=1), normal(300, seed=2)
    span = bk.reduce_to_span(x, W, v)
    assert (span.d, span.rank) == (300, 18)
    assert_orthonormal(span.basis)
    for t in (x, W, v):
        torch.testing.assert_close(span.lift(span.reduce(t)), t, atol=1e-12, rtol=0)
    assert span.residual(x).max() < 1e-11


@pytest.mark.parametrize("d", [1, 3, 17, 18, 40])
def test_the_rank_is_the_dimension_of_the_span(d):
    span = bk.reduce_to_span(normal(10, d), normal(8, d, seed=1))
    assert span.rank == min(d, 18)
    assert_orthonormal(span.basis)


def test_dependent_rows_count_once():
    x, W = normal(6, 50), normal(4, 50, seed=1)
    doubled = torch.cat([x, x, 3 * x[:2], x[:3] - x[3:], torch.zeros(2, 50, dtype=torch.float64)])
    paired = torch.cat([W, W, -W, W + x[:4]])
    span = bk.reduce_to_span(doubled, paired, x[:2].sum(0, keepdim=True))
    assert span.rank == 10
    assert_orthonormal(span.basis)
    assert max(span.residual(doubled).max(), span.residual(paired).max()) < 1e-12


def test_sizes_of_the_rows_do_not_matter():
    x, W = normal(6, 50) * 1e150, normal(4, 50, seed=1) * 1e-200
    span = bk.reduce_to_span(x, W)
    assert span.rank == 10
    assert_orthonormal(span.basis)


def test_float32_data_has_a_float64_basis_rounded_once():
    x, W = normal(20, 400, dtype=torch.float32), normal(10, 400, seed=1, dtype=torch.float32)
    span = bk.reduce_to_span(x, W)
    assert (span.basis.dtype, span.rank) == (torch.float32, 30)
    torch.testing.assert_close(span.basis.double(), bk.reduce_to_span(x.double(), W.double()).basis, atol=6e-8, rtol=0)


def test_nothing_spans_nothing():
    span = bk.reduce_to_span(torch.zeros(3, 5), torch.zeros(0, 5))
    assert (span.d, span.rank) == (5, 0)
    assert span.reduce(torch.ones(3, 5)).shape == (3, 0)
    assert torch.equal(span.residual(torch.ones(3, 5)), torch.ones(3, 5).norm(dim=1))


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_the_network_and_its_gradient_are_those_in_the_span(batch):
    """Also at points outside of the span, of which it sees the projection."""
    x, W, a = normal(*batch, 4, 3 * 60), normal(*batch, 5, 60, seed=1), normal(*batch, 5, seed=2)
    span = bk.reduce_to_span(x, W)
    assert span.rank == 4 * 3 + 5
    for points in (x, normal(*batch, 7, 3 * 60, seed=3), normal(7, 3 * 60, seed=4)):
        f, g = bk.two_layer_value_and_grad(points, W, a, patches=3)
        reduced_f, reduced_g = bk.two_layer_value_and_grad(span.reduce(points), span.reduce(W), a, patches=3)
        torch.testing.assert_close(reduced_f, f, atol=1e-11, rtol=0)
        torch.testing.assert_close(span.lift(reduced_g), g, atol=1e-12, rtol=0)


def test_networks_have_bases_of_their_own_padded_to_the_largest():
    x, W = normal(3, 4, 50), normal(3, 6, 50, seed=1)
    W[1, 3:] = W[1, :3]
    span = bk.reduce_to_span(x, W)
    assert span.basis.shape == (3, 50, 10)
    assert torch.equal(span.basis[1, :, 7:], torch.zeros(50, 3, dtype=torch.float64))
    torch.testing.assert_close(span.lift(span.reduce(x)), x, atol=1e-12, rtol=0)
    assert span.reduce(x[0]).shape == (3, 4, 10)  # points shared by all


def test_networks_that_share_all_share_one_basis():
    x, W = normal(4, 50), normal(6, 50, seed=1).expand(8, 6, 50)
    span = bk.reduce_to_span(x, W)
    assert span.basis.shape == (50, 10)
    torch.testing.assert_close(span.lift(span.reduce(W)), W, atol=1e-12, rtol=0)


def test_an_attack_in_the_span_is_the_attack():
    x, W, a = normal(9, 200), normal(7, 200, seed=1) / 14, normal(7, seed=2)
    y, span = normal(9, seed=3).sign(), bk.reduce_to_span(x, W)
    full = bk.l2_pgd(x, y, W, a, radius=2.0, activation="tanh")
    reduced = bk.l2_pgd(span.reduce(x), y, span.reduce(W), a, radius=2.0, activation="tanh")
    torch.testing.assert_close(reduced.margin, full.margin, atol=1e-11, rtol=0)
    torch.testing.assert_close(span.lift(reduced.x), full.x, atol=1e-11, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bk.reduce_to_span(torch.ones(3, 5), torch.ones(4)), "W: got torch.float32 of shape (4,)"),
        (lambda: bk.reduce_to_span(torch.ones(3, 5), torch.ones(2, 4)), "x: got shape (3, 5), expected (n, P·d)"),
        (lambda: bk.reduce_to_span(torch.ones(3, 2, 5), torch.ones(2, 4, 5)), "x: got shape (3, 2, 5)"),
        (lambda: bk.reduce_to_span(torch.ones(3, 5), torch.ones(2, 5), torch.ones(4)), "directions: got shape (4,)"),
        (lambda: bk.reduce_to_span(torch.full((3, 5), math.nan), torch.ones(2, 5)), "x, W: got values that are not"),
        (lambda: bk.reduce_to_span(torch.ones(3, 5), torch.ones(2, 5)).reduce(torch.ones(4)), "points: got shape (4,)"),
        (lambda: bk.reduce_to_span(torch.ones(3, 5), torch.ones(2, 5)).lift(torch.tensor(1.0)), "coordinates: got"),
        (lambda: bk.Span(torch.ones(2, 5, 3)).reduce(torch.ones(4, 1, 5)), "points: got shape (4, 1, 5), expected"),
    ],
)
def test_errors_of_the_span_name_the_argument(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_a_mixture_is_what_it_says():
    sample = bk.sample_mixture(40_000, 3, 5.0, flip=0.2, noise=2.0, generator=torch.Generator().manual_seed(0))
    x, y, clean = sample
    noise = x - clean[:, None] * torch.tensor([5.0, 0, 0])
    assert (noise.mean(0).abs() < 5 * 2 / 200).all()
    torch.testing.assert_close(noise.mT @ noise / 40_000, 4 * torch.eye(3), atol=5 * 4 * math.sqrt(2) / 200, rtol=0)
    assert abs((y != clean).float().mean() - 0.2) < 5 * 0.4 / 200
    assert abs(clean.mean()) < 5 / 200


def test_the_signal_may_be_a_vector():
    mean = torch.tensor([0.0, 3.0, 4.0])
    x, y, clean = bk.sample_mixture(5, 3, mean, noise=0.0)
    assert torch.equal(x, clean[:, None] * mean)
    assert torch.equal(y, clean)


@pytest.mark.parametrize("sampler", ["sample_mixture", "sample_reduced"])
def test_samples_repeat_and_leave_the_global_generator_alone(sampler):
    def draw(seed):
        more = {"m": 4, "tests": 3} if sampler == "sample_reduced" else {}
        generator = torch.Generator().manual_seed(seed)
        return getattr(bk, sampler)(6, 20, 2.0, flip=0.3, networks=(2,), generator=generator, **more)

    before = torch.get_rng_state()
    first, again, other = draw(0), draw(0), draw(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x)
    assert first.x.shape[0] == 2
    assert not torch.equal(first.x[0], first.x[1])


@pytest.mark.parametrize("d", [1, 2, 5, 9, 10, 30, 10**12])
def test_the_reduced_coordinates_have_the_least_dimension(d):
    sample = bk.sample_reduced(5, d, 3.0, m=4, tests=6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = min(d, 10)
    assert sample.rank == r
    assert (sample.x.shape, sample.W.shape, sample.test_x.shape) == ((5, r), (4, r), (6, r))
    assert (sample.test_residual > 0).all() == (d > r)
    if d == 10**12:  # norms concentrate
        torch.testing.assert_close(sample.x.norm(dim=1), torch.full((5,), 1e6, dtype=torch.float64), atol=5, rtol=0)
        torch.testing.assert_close(sample.W.norm(dim=1), torch.ones(4, dtype=torch.float64), atol=5e-6, rtol=0)
        assert (sample.test_residual / 1e6 - 1).abs().max() < 5e-6


def test_pairs_begin_alike():
    sample = bk.sample_reduced(5, 10**6, 3.0, m=8, paired=True, init=1e-3)
    assert sample.rank == 1 + 5 + 4
    assert torch.equal(sample.W[:4], sample.W[4:])
    assert abs(sample.W.norm(dim=1).mean().item() - 1) < 0.01


def test_one_seed_has_the_same_data_for_all_widths_and_nearly_so_for_all_dimensions():
    def draw(d, m):
        return bk.sample_reduced(5, d, 3.0, m=m, tests=7, flip=0.3, generator=torch.Generator().manual_seed(0))

    narrow, wide, high = draw(1000, 2), draw(1000, 6), draw(10**6, 2)
    for name in ("x", "test_x"):
        of = {key: getattr(sample, name)[:, :6] for key, sample in (("n", narrow), ("w", wide), ("h", high))}
        assert torch.equal(of["n"], of["w"])
        same = of["n"] == of["h"]
        assert same.sum() == same.numel() - 5 * (name == "x")  # all but the diagonal
    for name in ("y", "clean", "test_y", "test_clean"):
        assert torch.equal(getattr(narrow, name), getattr(wide, name))
        assert torch.equal(getattr(narrow, name), getattr(high, name))


DRAWS, SAMPLES, TESTS, NEURONS = 20_000, 3, 2, 2


def gram_matrices(d, reduced):
    """(draws, 9, 9): of y·μ, the training points, W and the test points, times their labels; those of the test points
    with each other need what lies outside the span, and are only known on the diagonal."""
    generator = torch.Generator().manual_seed(d + reduced)
    keywords = {"networks": DRAWS, "generator": generator, "dtype": torch.float64}
    if reduced:
        sample = bk.sample_reduced(SAMPLES, d, 1.5, m=NEURONS, init=0.7, tests=TESTS, **keywords)
        points, clean = torch.cat([sample.x, sample.test_x], 1), torch.cat([sample.clean, sample.test_clean], 1)
        W = sample.W
    else:
        points, _, clean = bk.sample_mixture(SAMPLES + TESTS, d, 1.5, **keywords)
        W = 0.7 * torch.randn(DRAWS, NEURONS, d, generator=generator, dtype=torch.float64)
    mean = torch.zeros(DRAWS, 1, points.shape[-1], dtype=torch.float64)
    mean[..., 0] = 1.5
    rows = torch.cat([mean, clean[..., None] * points, W], 1)
    gram = rows @ rows.mT
    test = 1 + SAMPLES + torch.arange(TESTS)
    if reduced:
        gram[:, test, test] += sample.test_residual.square()
    gram[:, test[0], test[1]] = gram[:, test[1], test[0]] = 0
    return gram


@pytest.mark.parametrize("d", [3, 7, 40])
def test_gram_matrices_have_the_moments_of_direct_sampling(d):
    """Means and second moments of all entries, and of all products of two, within six standard errors: of the 28 +
    28·29/2 numbers of a run not one is expected beyond five."""
    entries = []
    for reduced in (False, True):
        gram = gram_matrices(d, reduced)
        i, j = torch.triu_indices(*gram.shape[1:])
        entries.append(gram[:, i, j] / d)
    direct, drawn = ((torch.cat([t, (t[:, :, None] * t[:, None, :]).flatten(1)], 1)) for t in entries)
    error = (direct.var(0) / DRAWS + drawn.var(0) / DRAWS).sqrt()
    deviation = (direct.mean(0) - drawn.mean(0)).abs()
    assert (deviation <= 6 * error + 1e-12).all()


def kolmogorov_smirnov(first, second):
    """The largest distance of two empirical distribution functions, in units of its scale √(1/n + 1/m)."""
    order = torch.cat([first, second]).argsort()
    steps = torch.cat([torch.full_like(first, 1 / len(first)), torch.full_like(second, -1 / len(second))])[order]
    return (steps.cumsum(0).abs().max() / math.sqrt(1 / len(first) + 1 / len(second))).item()


@pytest.mark.parametrize("d", [5, 60])
def test_margins_have_the_distribution_of_direct_sampling(d):
    """Of a trained network, one gradient step on the training points, at training and at fresh points. Beyond 2.2 lies
    one in 8000 of the Kolmogorov distribution."""
    margins = []
    for reduced in (False, True):
        generator = torch.Generator().manual_seed(d + reduced)
        keywords = {"networks": DRAWS, "generator": generator, "dtype": torch.float64, "flip": 0.2}
        if reduced:
            sample = bk.sample_reduced(4, d, 1.5, m=2, init=0.3, tests=1, **keywords)
            x, y, W, test_x, test_y = sample.x, sample.y, sample.W, sample.test_x, sample.test_y
        else:
            points, labels, _ = bk.sample_mixture(5, d, 1.5, **keywords)
            W = 0.3 * torch.randn(DRAWS, 2, d, generator=generator, dtype=torch.float64)
            x, y, test_x, test_y = points[:, :4], labels[:, :4], points[:, 4:], labels[:, 4:]
        a = torch.tensor([0.7, -0.7], dtype=torch.float64).expand(DRAWS, 2)
        phi = bk.LeakyReLU(0.2)  # ReLU's margins are often exactly zero, and ties have no order
        gW, _, _ = bk.two_layer_parameter_grad(x, W, a, cotangent=-y, activation=phi)
        sets = ((x, y), (test_x, test_y))
        margins.append([(label * bk.two_layer(p, W - gW / d, a, activation=phi))[:, 0] for p, label in sets])
    for direct, drawn in zip(*margins, strict=True):
        assert kolmogorov_smirnov(direct, drawn) < 2.2
        assert kolmogorov_smirnov(direct, drawn + 0.1 * direct.std()) > 2.2  # the test sees a small shift


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": -1}, ValueError, "n: got -1"),
        ({"d": 0}, ValueError, "d: got 0"),
        ({"signal": -1.0}, ValueError, "signal: got -1.0, expected a finite number ≥ 0"),
        ({"signal": "7"}, TypeError, "signal: got str, expected a number"),
        ({"flip": 1.5}, ValueError, "flip: got 1.5, expected a share between 0 and 1"),
        ({"noise": math.inf}, ValueError, "noise: got inf"),
        ({"networks": (2, -1)}, ValueError, "networks: got -1"),
        ({"generator": 3}, TypeError, "generator: got int, expected a torch.Generator or None"),
        ({"dtype": torch.bfloat16}, TypeError, "dtype: got torch.bfloat16"),
    ],
)
def test_errors_of_samples_name_the_argument(change, error, message):
    given = {"n": 3, "d": 5, "signal": 1.0, **change}
    with pytest.raises(error, match=re.escape(message)):
        bk.sample_mixture(**given)
    with pytest.raises(error, match=re.escape(message)):
        bk.sample_reduced(**given, m=4)


def test_errors_of_weights_and_signals():
    with pytest.raises(ValueError, match=re.escape("signal: got shape (2,), expected a number or (5,)")):
        bk.sample_mixture(3, 5, torch.ones(2))
    with pytest.raises(ValueError, match="paired: needs an even number of neurons, got m=3"):
        bk.sample_reduced(3, 5, 1.0, m=3, paired=True)
    with pytest.raises(ValueError, match="init: got -1"):
        bk.sample_reduced(3, 5, 1.0, m=3, init=-1.0)
