"""Adam as torch has it, for a few small tensors."""

import torch
from torch.optim.adam import adam


class Adam:
    """The steps of `torch.optim.Adam`, to the bit, with its defaults for betas and eps.

    Why not that class: the first optimizer of a process imports torch._dynamo, which costs every worker that
    trains RAM seconds.

    Parameters
    ----------
    parameters : tensors that require a gradient

    Attributes
    ----------
    state : dict of lists, an entry per parameter: exp_avg, exp_avg_sq (of its shape), step (tensor ())
    """

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.state = {name: [torch.zeros_like(each, requires_grad=False) for each in self.parameters]
                      for name in ("exp_avg", "exp_avg_sq")}
        self.state["step"] = [torch.zeros((), device=each.device) for each in self.parameters]

    @torch.no_grad()
    def step(self, learning_rate):
        """Move every parameter by its gradient."""
        # fused: the same rule in one pass over the weights, in a quarter of the time
        adam(self.parameters, [each.grad for each in self.parameters], self.state["exp_avg"],
             self.state["exp_avg_sq"], [], self.state["step"], fused=True, amsgrad=False, beta1=0.9,
             beta2=0.999, lr=learning_rate, weight_decay=0.0, eps=1e-8, maximize=False)
