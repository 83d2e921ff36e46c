"""``Trainer(sync_batchnorm=True)`` on CPUs."""

from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from lnsgd.models.sync_batch_norm import plain_batch_norm, synchronize_batch_norm


class CPUSyncBatchNorm(TorchSyncBatchNorm):
    """Lightning's plugin for synchronized batch normalization, for processes on CPUs, where torch's own layer fails.

    ``Trainer(accelerator="cpu", devices=2, sync_batchnorm=True, plugins=[CPUSyncBatchNorm()])``; the command ``lnsgd``
    adds it where a config asks for ``sync_batchnorm`` on CPUs. See `lnsgd.models.sync_batch_norm.SyncBatchNorm`.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """The model itself, with layers that normalize over the batch of all processes.

        Raises:
            ValueError: a layer of another class than torch.nn.BatchNorm1d, 2d and 3d.
        """
        synchronize_batch_norm(model)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """The model itself, with plain layers again."""
        plain_batch_norm(model)
        return model
