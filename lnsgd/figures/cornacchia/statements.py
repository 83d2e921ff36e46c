"""Statements of Cornacchia and others: "Regularization by Misclassification in ReLU Neural Networks"."""

from lnsgd.figures.framework.statements import statements_of

STATEMENTS = statements_of(
    "cornacchia",
    "Cornacchia et al.",
    {
        # Section 6.3 and Figure 1: the hypercube problem.
        "hypercube-error": ("§ 1, Fig. 1", "generalizes poorly with a test error of 49%"),
        "hypercube-error-noise": ("§ 1, Fig. 1", "makes a tremendous difference and the test error drops to 21%"),
        "hypercube-active": ("§ 1, Fig. 1", "whereas without label noise it is roughly 94 (i.e. 40%)"),
        "hypercube-active-noise": ("§ 1, Fig. 1", "active neurons with label noise is roughly 47 (i.e. 20%)"),
        "hypercube-better": ("§ 6.3, Fig. 1a", "a considerable drop in the test error versus the “vanilla” network"),
        "hypercube-sparser": (
            "§ 6.3, Fig. 1b",
            "the network trained with label noise has significantly sparser activation patterns",
        ),
        "hypercube-longer": ("§ 1, Fig. 1", "The increased sparsity comes at a cost: the training time is longer"),
        "hypercube-on-test": ("§ 1", "These quantities remain the same even when measured over the test set"),
        "hypercube-fits": ("§ 1", "Without label noise, the network easily fits the data"),
        "hypercube-fits-noise": ("§ 6.3", "train both networks … till they reach zero classification error"),
        "hypercube-vanilla": ("§ 6.3", "not perform a lot better than a random guess on unseen data"),
        "hypercube-explicit": ("§ 6.3", "number of active neurons will be dε … for inputs from C₁"),
        "hypercube-explicit-silent": ("§ 6.3", "no neuron will be active for inputs from C₋₁"),
        "hypercube-explicit-represents": (
            "§ 6.3",
            "has a simple representation using a one hidden layer … b = −0.5",
        ),
        # Section 6.1, Figure 2 and Theorem 2: a single neuron under pure label noise.
        "neuron-linear": ("§ 6.1, Fig. 2", "the norm of the weights decays at a linear rate"),
        "neuron-equilibrium": ("§ 6.1, Fig. 2", "up to an equilibrium point of norm dh"),
        "neuron-hinge": ("Theorem 2 (a)", "T = O(‖V⁽⁰⁾‖/(mh)) steps, ‖V⁽ᵗ⁾‖ decreases to O(dh …)"),
        "neuron-logistic": ("Theorem 2 (b)", "T = O(‖V⁽⁰⁾‖/(mdh^{3/2})) steps, ‖V⁽ᵗ⁾‖ decreases to O(d√h …)"),
        "neuron-bias": ("§ 5", "the norm decreases in expectation for the hinge loss … with a bias"),
        # Section 6.2, Figures 3 and 4: a network under pure label noise.
        "weights-decay": ("§ 6.2, Fig. 3", "with no bias neurons the weights decay to zero"),
        "hinge-faster": ("§ 6.2, Fig. 3", "With cross entropy, longer training time is needed to nullify the weights"),
        "biases-no-decay": ("§ 6.2, Fig. 4a", "the weights do not decay to zero when adding bias neurons"),
        "hidden-norm-falls": ("§ 5, Fig. 4a", "the norm of the weights of the hidden layer decreases"),
        "bias-drift": ("§ 5, Fig. 4c", "due to significant negative drift in the bias weights"),
        "bias-monotone": ("§ 5, Fig. 4c", "the bias term of a neuron is monotonically decreasing"),
        "relu-death": ("§ 5, Fig. 4b", "all the ReLU neurons stop firing for almost all inputs"),
        "relu-death-all": ("§ 1", "all ReLU neurons die during training … do not respond to any input"),
        "no-death-without-bias": ("§ 5", "the neurons cannot stop firing for all inputs"),
        # Theorems 3 and 4: the standard basis.
        "basis-output": ("Theorem 3", "after a finite number of steps we will have |N(x)| < 2kh"),
        "basis-large-step": ("Theorem 4, 1", "h ≥ 1, for all i it holds ReLU(Weᵢ) = 0"),
        "basis-small-step": ("Theorem 4, 2", "at most k + o(k) … of the coordinates … are zero"),
        "basis-small-step-each": ("Theorem 4, 2", "for all i it holds ReLU(Weᵢ) ≠ 0"),
        "basis-graded": ("§ 1", "larger learning rates induced greater sparsity"),
        # Section 6.4, Figures 5 and 6: MNIST.
        "mnist-active": ("§ 6.4, Fig. 5a", "the sparser activation patterns (25% vs. 6%)"),
        "mnist-error": ("§ 6.4, Fig. 5b", "label noise has better performance in terms of the test error"),
        "mnist-softmax": ("§ 6.4", "the loss in (3) produces sparser representations than working with softmax"),
        "mnist-associated": (
            "App. F, Fig. 6",
            "104 digit associated neurons versus 222 digit associated neurons with label noise",
        ),
        "mnist-more-associated": (
            "App. F, Fig. 6",
            "we can observe more neurons that are associated with a specific digit",
        ),
        "mnist-one-layer": ("§ 2", "similar results even if only one layer of weights is trained"),
        "smoothing-denser": ("§ 6.5", "label smoothing generates denser representations compared to label noise"),
        "smoothing-sparsifies": (
            "§ 6.5",
            "we observe the same qualitative sparsification effects for label smoothing",
        ),
        "smoothing-associated": (
            "§ 6.5",
            "neurons in the penultimate layer can be associated with a specific label",
        ),
        "smoothing-clusters": ("§ 6.5", "With label smoothing the clusters were more tightly packed"),
        "mnist-half-at-start": (
            "§ 7, Fig. 5a",
            "at initialization, the typical fraction of active neurons is 50%",
        ),
        "mnist-quarter-at-end": ("§ 7, Fig. 5a", "at the end of training the fraction decreases to 25%"),
        "mnist-pure-noise": ("§ 5", "for MNIST item 1 holds for the rate h = 0.001"),
        "mnist-pure-noise-smaller": (
            "§ 5",
            "the learning rate in which all the neurons die is much smaller",
        ),
        "larger-batches": ("§ 6", "increasing the size of SGD batch results in similar outcomes"),
        "other-parameters": ("§ 6", "varying any of these parameters does not affect our main findings"),
        # Section 6.4: CIFAR-10.
        "cifar10-accuracy": ("§ 6.4", "test accuracy of slightly more than 92% for both networks"),
        "cifar10-active": ("§ 6.4", "without label smoothing was 46.9% vs. 27.5% with label smoothing"),
        "cifar10-sparser": ("§ 6.4", "Adding noise over the labels sparsifies the firing patterns of the network"),
        "cifar10-deeper": ("§ 6.4", "deeper layers corresponded to larger sparsity"),
        "cifar10-penultimate": ("§ 6.4", "The sparsity was most pronounced in the penultimate layer"),
        # Section 1 and Appendix A: the number a(p) of active neurons.
        "curve-ends": ("§ 1", "a(0) is much larger than a(1)"),
        "curve-fits": ("§ 1", "a value of p where the network still fits the data"),
        "curve-generalizes": ("§ 1", "low sparsity. This, in turn, may improve generalization"),
        "curve-polynomial": (
            "App. A",
            "a(p) is a polynomial in p and thus continuous",
            "proven for every network; no experiment can contradict it",
        ),
        # Section 4: norms after a step on a misclassified sample.
        "norm-step": ("Theorem 1", "any layer of weights W … ‖W⁽ᵗ⁺¹⁾‖² < ‖W⁽ᵗ⁾‖²"),
        "norm-step-sharing": ("Theorem 1", "of any architecture (including weight sharing)"),
        "norm-step-leaky": ("§ 4", "as well as for activations such as ReLU or Leaky ReLU"),
        "norm-step-outputs": ("§ 6.4", "we can apply Theorem 1 to each output neuron separately"),
        "norm-step-inputs": ("§ 4, eq. (2)", "The bias terms implicitly appear in the matrices Wᵢ"),
        "norm-step-biases": ("§ 4", "still holds empirically for networks of type (1)"),
        "norm-flow": ("Corollary 1", "‖W⁽ᵗ⁾‖ is monotonically decreasing as a function of t"),
    },
)
