"""``Trainer(sync_batchnorm=True)`` on CPUs."""

from torch import nn

from lnsgd.lightning import TorchSyncBatchNorm
from lnsgd.models.sync_batch_norm import plain_batch_norm, synchronize_batch_norm


class CPUSyncBatchNorm(TorchSyncBatchNorm):
    """Lightning plugin for synchronized batch normalization over processes on CPUs, where torch's own layer fails.

    ``Trainer(accelerator="cpu", devices=2, sync_batchnorm=True, plugins=[CPUSyncBatchNorm()])``; the command ``lnsgd``
    adds it if a config asks for ``sync_batchnorm`` on CPUs. See `lnsgd.models.sync_batch_norm.SyncBatchNorm`.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the batch normalization layers of a model by layers that normalize over the batch of all processes.

        Raises:
            ValueError: a layer of another class than torch.nn.BatchNorm1d, 2d and 3d.
        """
        synchronize_batch_norm(model)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Replace the synchronized layers of a model by plain layers."""
        plain_batch_norm(model)
        return model
