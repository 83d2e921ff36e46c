"""The two families of tolerance."""

# Exact mathematics in float64.
EXACT = {"rtol": 1e-10, "atol": 1e-12}

# Monte Carlo: how many standard errors an estimate may be off, with a fixed seed.
STANDARD_ERRORS = 4.0
