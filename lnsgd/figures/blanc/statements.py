"""Statements of Blanc, Gupta, Valiant and Valiant: "Implicit regularization for deep neural networks …".

Sections, figures and theorems are numbered as in the second version with matrix sensing, unless "v2" is said, which is
the version of March 2022 without it.
"""

from lnsgd.figures.framework.statements import statements_of

STATEMENTS = statements_of(
    "blanc",
    "Blanc et al.",
    {
        # Figure 1: matrix sensing.
        "sensing-train": ("Fig. 1", "For both training dynamics, the training error quickly converges to zero"),
        "sensing-plateau": ("Fig. 1", "test error without label noise plateaus with large error"),
        "sensing-recovers": ("Fig. 1", "the test error with label noise converges to zero"),
        "sensing-time": ("Fig. 1", "inversely proportional to the square of the learning rate"),
        "sensing-gaussian": ("Fig. 1", "Similar results hold when U₀ is chosen with i.i.d. Gaussian entries"),
        "sensing-regularizer": ("§ 1.1", "this expectation is calculated to be 2(d + 1)‖U‖²_F"),
        "sensing-nuclear": ("§ 1.1", "the implicit regularizer will tend to find the minimum of Equation 2"),
        # Theorem 2, Figures 2 and 3: ReLU networks on one-dimensional data.
        "relu-fits": ("Fig. 2", "In all cases, the training error is 0"),
        "relu-convexity": ("Theorem 2", "minimum number of changes of convexity necessary to fit the data"),
        "relu-linear": ("§ 1.1", "for any three co-linear points, the interpolation should be linear"),
        "relu-not-simple": ("§ 1.1, Fig. 2", "training without label noise produces models that are not simple"),
        "relu-vary": ("§ 1.1, Fig. 2", "that vary significantly depending on the network initialization"),
        "relu-independent": ("§ 1, Fig. 2", "reliably produce “simple” models, independent of network initialization"),
        "relu-shorter": ("Fig. 3", "model with significantly smaller curve length of ≈ 4.3"),
        "relu-later": ("Fig. 3", "at a much longer timescale—moves within the zero training error manifold"),
        "relu-one-layer": ("Fig. 2", "not occur … for ReLU networks with only a single layer"),
        "relu-deeper": (
            "§ 1.2",
            "any depth greater than 2 … empirically … seems to hold",
            "not tested yet; the compiled engine trains one hidden layer, and 10⁷ steps without it take hours",
        ),
        "relu-test-error": ("v2 § 1", "test error bounded by O(k/n)"),
        # Theorem 3: one labelled point.
        "point-two-values": ("§ 1", "take at most two distinct values, or are zero"),
        "point-tanh-signs": ("Theorem 3", "In the case of tanh … α₁ = −α₂ and β₁ = −β₂"),
        "points-classes": ("§ 1.2", "at most k points … only O(k) classes of activations"),
        # Theorem 1 and its proof: near zero error.
        "escape-drift": ("Lemma 6", "θⱼ(T) = θⱼ(0) − 2Tη²Var[eᵢ] Σₖ …"),
        "escape-stationary": ("Theorem 1", "the dynamics will remain near θ* with high probability"),
        "escape-steep": ("Lemma 4", "will stay bounded by ≈ √η"),
        "escape-distance": ("Definition 1", "‖θ(t) − θ*‖ ≥ cη^{0.4}"),
        "escape-regularizer": (
            "Definition 1",
            "the value of the implicit regularization term decreases significantly",
        ),
        "escape-window": ("Definition 2", "for any t ≤ η^{−1.6} … ‖θ(t) − θ*‖ ≤ η^{0.44}"),
        "escape-isotropic": ("§ 3.3", "Crucially, this limiting Gaussian is isotropic!"),
        "escape-uncorrelated": ("§ 3.3", "the different dimensions become uncorrelated"),
        "escape-relaxation": ("§ 3.3", "convergence time … varies inversely with γⱼ"),
        # Section 1.2: future directions.
        "two-copies": ("§ 1.2", "equivalent to standard SGD … each original datapoint … has two “copies”"),
        "explicit": (
            "§ 1.2",
            "accelerate this second phase, for example, by making the regularization explicit",
        ),
        "difficult-data": (
            "§ 1.2",
            "performing SGD (without any additional noise) over “difficult-to-fit” data",
            "a direction for research; the paper does not say what would be seen",
        ),
        "nearest-neighbour": (
            "§ 1.2",
            "SGD becomes essentially nearest-neighbor linear interpolation of the input data",
            "the same statement as that on three collinear points, which is tested",
        ),
    },
)
