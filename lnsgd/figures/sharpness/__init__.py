"""Figures of Gatmiry, Li, Reddi and Jegelka (2024)."""
