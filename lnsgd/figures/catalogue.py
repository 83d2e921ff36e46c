"""All figures, by name."""

from lnsgd.figures.blanc_escape import FIGURE as BLANC_ESCAPE
from lnsgd.figures.blanc_matrix_sensing import FIGURE as BLANC_MATRIX_SENSING
from lnsgd.figures.blanc_relu_1d import FIGURE as BLANC_RELU_1D
from lnsgd.figures.blanc_single_point import FIGURE as BLANC_SINGLE_POINT
from lnsgd.figures.cornacchia_basis import FIGURE as CORNACCHIA_BASIS
from lnsgd.figures.cornacchia_cifar10 import FIGURE as CORNACCHIA_CIFAR10
from lnsgd.figures.cornacchia_hypercube import FIGURE as CORNACCHIA_HYPERCUBE
from lnsgd.figures.cornacchia_mnist import FIGURE as CORNACCHIA_MNIST
from lnsgd.figures.cornacchia_neuron import FIGURE as CORNACCHIA_NEURON
from lnsgd.figures.cornacchia_norm_step import FIGURE as CORNACCHIA_NORM_STEP
from lnsgd.figures.cornacchia_pure_noise import FIGURE as CORNACCHIA_PURE_NOISE
from lnsgd.figures.cornacchia_sparsity_curve import FIGURE as CORNACCHIA_SPARSITY_CURVE
from lnsgd.figures.figure import Figure
from lnsgd.figures.nagarajan_label_noise import FIGURE as NAGARAJAN_LABEL_NOISE
from lnsgd.figures.nagarajan_noise import FIGURE as NAGARAJAN_NOISE
from lnsgd.figures.nagarajan_norms import FIGURE as NAGARAJAN_NORMS
from lnsgd.figures.nagarajan_samples import FIGURE as NAGARAJAN_SAMPLES
from lnsgd.figures.nagarajan_width import FIGURE as NAGARAJAN_WIDTH
from lnsgd.figures.sharpness_clusters import FIGURE as SHARPNESS_CLUSTERS
from lnsgd.figures.sharpness_flow import FIGURE as SHARPNESS_FLOW
from lnsgd.figures.sharpness_rank_one import FIGURE as SHARPNESS_RANK_ONE
from lnsgd.figures.sharpness_rank_two import FIGURE as SHARPNESS_RANK_TWO

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        CORNACCHIA_HYPERCUBE,
        CORNACCHIA_NEURON,
        CORNACCHIA_PURE_NOISE,
        CORNACCHIA_BASIS,
        CORNACCHIA_MNIST,
        CORNACCHIA_CIFAR10,
        CORNACCHIA_SPARSITY_CURVE,
        CORNACCHIA_NORM_STEP,
        NAGARAJAN_WIDTH,
        NAGARAJAN_SAMPLES,
        NAGARAJAN_NOISE,
        NAGARAJAN_NORMS,
        NAGARAJAN_LABEL_NOISE,
        BLANC_MATRIX_SENSING,
        BLANC_RELU_1D,
        BLANC_SINGLE_POINT,
        BLANC_ESCAPE,
        SHARPNESS_RANK_ONE,
        SHARPNESS_CLUSTERS,
        SHARPNESS_RANK_TWO,
        SHARPNESS_FLOW,
    )
}
