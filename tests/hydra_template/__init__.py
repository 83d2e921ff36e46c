"""A project in the shape of the lightning-hydra-template, which knows nothing of lnsgd."""
