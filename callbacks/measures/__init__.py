"""The measuring callbacks: each is a measurer of `lnsgd.measuring` with a schedule."""
