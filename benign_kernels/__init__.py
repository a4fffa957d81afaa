"""Fast ℓ2 attacks on, and adversarial training of, two-layer networks."""

__version__ = "0.1.0"
