"""Statements of Nagarajan and Kolter: "Generalization in Deep Networks: The Role of Distance from Initialization"."""

from lnsgd.figures.framework.statements import statements_of

STATEMENTS = statements_of(
    "nagarajan",
    "Nagarajan & Kolter",
    {
        # Section 4, Figures 1 to 4: real labels.
        "width-flat": ("§ 4", "the distance r mostly remains constant or even decreases with width H"),
        "width-very-large": (
            "§ 4",
            "for very large H, r shows only a slight increase",
            "the width at which it begins is not given; H up to 5,120 needs a GPU",
        ),
        "samples-grow": ("§ 4", "it does grow with the training set size m"),
        "samples-rates": ("§ 4", "typically at between the rates of m^0.25 to m^0.4"),
        "samples-small-width": ("§ 4", "The growth rate is more prominent for smaller H"),
        "generalization": ("App. D.1", "only decreases or remains constant as we increase the … hidden units"),
        "generalization-early": (
            "App. D",
            "non-increasing (or even, decreasing) generalization errors with increasing width",
        ),
        # Section 4, Figures 1, 5 and 6: random labels.
        "noise-grows": ("§ 4", "r increases with more noise in the labels"),
        "noise-more-samples": ("§ 4", "this increase is more pronounced when sample size m is larger"),
        "noise-width": ("§ 4", "for both the real data and the corrupted data … mostly remains constant"),
        # Sections 5 and 6, Appendix C: norms, outputs and gradients.
        "origin": ("§ 5", "distance from origin grows as √H"),
        "frobenius-product": ("Proposition 6.1", "its ℓ₂ norm Π‖Zₖ‖²_F grows as Ω̃(H^{d−2})"),
        "spectral": ("§ 6", "the spectral norm of the random matrices are Θ̃(1)"),
        "spectral-product": ("§ 6", "regularized to a H-independent value, then so is the term Π‖Wₖ‖₂"),
        "spectral-bound": ("Proposition 6.2", "Π‖Wₖ‖₂ ≤ Õ(cᵈ(1 + ‖(W, B) − (Z, C)‖_F)ᵈ)"),
        "untrained": (
            "Proposition 6.1",
            "the untrained network provably has a H-independent generalization error",
        ),
        "output-bound": ("Theorem C.1", "|f(x)| ≤ Õ(cᵈ(r + 1)ᵈ(‖x‖ + 1))"),
        "initial-loss": ("Corollary C.1.1", "the initial loss can be bounded independent of H"),
        "gradient-bound": ("Theorem C.2", "‖∂f(x)/∂W‖ ≤ Õ(dcᵈ(r + 1)ᵈ(‖x‖ + 1))"),
        "rademacher": (
            "Theorem 5.1",
            "the Rademacher complexity corresponding to the hypotheses … at … distance",
            "a supremum over all networks within a distance, which no training run measures",
        ),
    },
)
