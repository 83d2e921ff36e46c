"""Statements of Gatmiry and others: "Simplicity Bias via Global Convergence of Sharpness Minimization"."""

from lnsgd.figures.framework.statements import statements_of

STATEMENTS = statements_of(
    "sharpness",
    "Gatmiry et al.",
    {
        # Theorems 1 and 2, Figure 1a: at least as many dimensions as points.
        "rank-one": ("Fig. 1a", "The rank of the feature matrix and weight matrix go to one"),
        "neurons-equal": ("Theorem 1, 3", "For all neurons … |θⱼ[T]ᵀxᵢ − φ⁻¹(yᵢ/m)| ≤ ε"),
        "trace-minimal": ("Theorem 1, 2", "Tr(D²L(θ[T])) ≤ inf Tr(D²L(θ)) + ε"),
        "loss-zero": ("Theorem 1, 1", "L(θ[T]) ≤ ε"),
        "trace-lemma": ("Lemma 2", "Tr D²L(θ) = Σᵢ‖Dfᵢ(θ)‖²"),
        "cube": ("Lemma 18", "for the cube activation … Theorem 2 also holds"),
        "odd-activations": ("§ 3.2", "of the form φ(z) = z^{2k+1} + νz for ν > 0"),
        "unequal-weights": ("§ 4.2", "the φ″ image of the feature matrix Θ*X is rank one"),
        # Figures 1b and 2: more points than dimensions.
        "small-set": ("§ 1, Fig. 1b", "feature embeddings of the neurons cluster and collapse into a small set"),
        "clusters": ("Fig. 1b", "collapse into clusters in the low dimensional regime d < n"),
        "attraction": ("App. A", "neurons tend to converge to one another especially when they are close"),
        "high-rank": ("App. A", "the feature matrix is high rank in this case"),
        "rank-two": ("App. A, Fig. 2", "the rank in this case converges to two"),
        "not-rank-one": ("Fig. 2", "The rank of the feature matrix cannot converge to one"),
        "low-rank": ("App. A, Fig. 2", "one might guess that it still converges to something low-rank"),
        # Section 3 and Theorem 3: the gradient flow of the trace.
        "flow": ("§ 3", "label noise SGD evolves on the manifold … according to the … gradient flow"),
        "flow-exponential": ("Theorem 3", "the flow has exponentially fast convergence to the global minimizer"),
        "flow-rate": ("§ 4.3", "linear convergence of gradient norm"),
        "flow-stays": ("§ 4.2", "once the gradient is sufficiently small, it will always remain small"),
        "flow-gradient": ("Lemma 7", "The norm of the gradient … becomes decreasing with respect to t"),
        "flow-convex": ("Lemma 4", "the Hessian of Tr D²L on the manifold is PSD"),
        "flow-near-optimum": ("Lemma 6", "|θⱼᵀxᵢ − θⱼ*ᵀxᵢ| ≤ δ/(√μ ϱ₁ϱ₂)"),
        # Beyond label noise, and conjectures.
        "one-sam": ("§ 1", "such as label noise SGD and 1-SAM"),
        "deeper": (
            "§ 5",
            "low-rank simplicity bias can also be shown for deeper networks",
            "a hypothesis on what can be proven; the paper does not say what would be seen",
        ),
    },
)
