"""Naive curvature: dense matrices and one gradient after another, in float64, to compare the library with."""

import torch


def dense_diagonals(model, loss, inputs, labels):
    """Compute the diagonals of the Hessian of the mean loss and of its generalized Gauss–Newton matrix, (P,) each.

    The second is that of Σ_i J_iᵀ (∇²ℓ_i) J_i / n with dense Jacobians J_i of the outputs and dense ∇²ℓ_i.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in named.values()]
    shape = None

    def flat_outputs(flat):
        nonlocal shape
        weights = {name: part.view_as(p) for part, (name, p) in zip(flat.split(sizes), named.items())}
        outputs = torch.func.functional_call(model, weights, (inputs,))
        shape = outputs.shape
        return outputs.reshape(-1)

    def mean_loss(outputs):
        return loss(outputs.view(shape), labels).mean()

    flat = torch.cat([p.detach().flatten() for p in named.values()])
    outputs = flat_outputs(flat).detach()
    second = torch.autograd.functional.hessian(mean_loss, outputs)
    jacobian = torch.autograd.functional.jacobian(flat_outputs, flat, vectorize=True)
    hessian = torch.autograd.functional.hessian(lambda flat: mean_loss(flat_outputs(flat)), flat)
    return hessian.diagonal(), ((second @ jacobian) * jacobian).sum(0)


def example_norms_loop(model, inputs, cotangents):
    """Compute ‖Σ_c s_ic ∇f_c(x_i)‖² by tensor, (B, T), with one forward and one backward pass per example."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for x, s in zip(inputs, cotangents):
        product = (model(x.unsqueeze(0)).reshape(-1) * s.reshape(-1)).sum()
        gradients = torch.autograd.grad(product, parameters, allow_unused=True)
        rows.append([0.0 if g is None else g.double().square().sum().item() for g in gradients])
    return torch.tensor(rows, dtype=torch.float64)
