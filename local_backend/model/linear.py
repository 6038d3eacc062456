"""A marker for weights that a kernel may repack."""

from torch import nn


class Projection(nn.Linear):
    """A matrix that is only ever applied as a whole, [.., in_features] -> [.., out_features].

    Kernels may replace such a module by one that stores the same matrix in another form; weights that the
    model also slices (kv_b_proj, routed experts) stay plain nn.Linear.
    """
