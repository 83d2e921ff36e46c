"""The framework of all figures: definition, runner, results, claims, summary, screen and drawing style."""
