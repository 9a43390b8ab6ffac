"""Subclasses of tensors at the operators' door: what goes in may be one, what comes out is plain.

A subclass such as MONAI's ``MetaTensor`` carries what belongs to one image (its affine, its file) through every torch
function, and may replace methods of tensors by its own. None of that is true of regions, of indices or of crops, so
the operators, and the network, read such a tensor as the plain one that it holds and return plain tensors. Gradients
flow back to the subclass.
"""

from __future__ import annotations

from torch import Tensor, nn


def plain(tensor: Tensor) -> Tensor:
    """The same values, memory and gradient without the subclass.

    A parameter is left as it is, since its results are plain already. So is a subclass that stands for the values
    itself by ``__torch_dispatch__`` (fake, quantised or distributed tensors): PyTorch calls it for each operation.
    Under ``torch.compile`` the graph ends before a subclass and goes on with the plain tensor.
    """
    kind = type(tensor)
    if kind in (Tensor, nn.Parameter) or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return tensor
    return tensor.as_subclass(Tensor)
