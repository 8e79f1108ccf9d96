"""RAM's output with its gradient written out: the numbers of `RAM.forward`, but quicker to train with.

A toy batch is so small that recording and replaying each operation costs automatic differentiation as much
as the products themselves. So here a whole RAM is one operation. `RAM.forward` is the plain form beside it.
"""

import torch
from torch.autograd.function import once_differentiable

from impart_utils.ram import _projections

SHORTEST = 1e-12  # a norm below which `ram.unit` doesn't divide by it


def ram_output(ram, image, r_img, r_txt):
    """`ram(image, r_img, r_txt)`; its gradient reaches RAM's parameters, and nothing else.

    Parameters
    ----------
    ram : RAM;  image : tensor (b, d);  r_img, r_txt : tensors (b, k, d)

    Returns
    -------
    output : tensor (b, d), not normalized

    Raises
    ------
    ValueError : other shapes, or features that want a gradient: CLIP is frozen, so they are constants here.
    """
    if image.requires_grad or r_img.requires_grad or r_txt.requires_grad:
        raise ValueError("Expected features without a gradient: here they are constants. Detach them or call "
                         "ram(image, r_img, r_txt), which differentiates by them, too.")
    attentions = zip(ram.text_attention, ram.image_attention, strict=True)
    weights = [weight for pair in attentions for each in pair for weight in
               (each.in_proj_weight, each.in_proj_bias, each.out_proj.weight, each.out_proj.bias)]
    return _Output.apply(ram, image, r_img, r_txt, ram.gate, *weights)


class _Output(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ram, image, r_img, r_txt, gate, *weights):
        """`RAM.forward` itself; of each attention on its way stays what the gradient needs."""
        ctx.ram, ctx.gate, ctx.attentions = ram, gate, []

        def attend(attention, query, keys, values):
            output, kept = _attend(attention, query, keys, values)
            ctx.attentions.append((output, query, kept))
            return output

        return ram.forward(image, r_img, r_txt, attend=attend)

    @staticmethod
    @once_differentiable
    def backward(ctx, de):
        ram, gate, by_weight = ctx.ram, ctx.gate, []
        d_gate = None if gate is None else torch.zeros_like(gate)
        for layer in reversed(range(ram.options["layers"])):
            (text, h, _), (image, _, _) = branches = ctx.attentions[2 * layer:2 * layer + 2]
            d_added, dh, of_layer = de, de, []
            if gate is not None:
                d_gate[layer] = (de * ram._combine(text, image)).sum()
                d_added = gate[layer] * de
            if ram.normalize == "sum":
                d_added = _unit_gradient(d_added, text + image)
            for output, _, kept in branches:
                d_output = _unit_gradient(d_added, output) if ram.normalize == "branch" else d_added
                dq, gradients = _attend_gradient(d_output, h, *kept)
                of_layer += gradients
                if layer:  # before layer 1 stands the picture, a constant
                    dh = dh + dq.T @ kept[0].flatten(0, 1)  # by W_q
            by_weight = of_layer + by_weight
            de = dh * (h > 0) if ram.between == "relu" else dh
        return None, None, None, None, d_gate, *by_weight


def _attend(attention, query, keys, values):
    """`folded_attention`: its output (b, d), and what `_attend_gradient` needs of the way to it.

    What is per head stands as (d, b), d = h * e: the weights as the left factor make the quicker products.
    """
    (W_q, W_k, W_v), (b_q, _, b_v) = _projections(attention)
    W_o, b_o = attention.out_proj.weight, attention.out_proj.bias
    q = torch.addmm(b_q[:, None], W_q.flatten(0, 1), query.T)  # (d, d) @ (d, b) -> (d, b)
    q = q.mul_(W_k.shape[1] ** -0.5).view(*W_k.shape[:2], -1)  # (h, e, b)
    folded = torch.bmm(q.transpose(1, 2), W_k)  # (h, b, e) @ (h, e, d) -> (h, b, d)
    a = torch.bmm(keys, folded.permute(1, 2, 0)).softmax(dim=1)  # (b, k, d) @ (b, d, h) -> (b, k, h)
    mean = torch.bmm(a.transpose(1, 2), values)  # (b, h, k) @ (b, k, d) -> (b, h, d)
    per_head = torch.bmm(W_v, mean.permute(1, 2, 0))  # (h, e, d) @ (h, d, b) -> (h, e, b)
    joined = per_head.view(-1, len(query)).add_(b_v[:, None])  # (d, b)
    return torch.addmm(b_o, joined.T, W_o.T), (W_q, W_k, W_v, W_o, keys, values, q, a, mean, joined)


def _attend_gradient(d_output, query, W_q, W_k, W_v, W_o, keys, values, q, a, mean, joined):
    """From d_output (b, d): that by W_q times the query, (d, b), and those by the four weights."""
    d = len(W_o)
    d_W, d_b = W_o.new_empty(3 * d, d), W_o.new_zeros(3 * d)  # b_k cancels: its gradient stays zero
    d_joined = W_o.T @ d_output.T  # (d, b)
    d_heads = d_joined.view(q.shape)  # (h, e, b)
    d_mean = torch.bmm(d_heads.transpose(1, 2), W_v)  # (h, b, e) @ (h, e, d) -> (h, b, d)
    d_a = torch.bmm(values, d_mean.permute(1, 2, 0))  # (b, k, d) @ (b, d, h) -> (b, k, h)
    d_scores = a * (d_a - (a * d_a).sum(dim=1, keepdim=True))
    d_folded = torch.bmm(d_scores.transpose(1, 2), keys)  # (b, h, k) @ (b, k, d) -> (b, h, d)
    dq = torch.bmm(W_k, d_folded.permute(1, 2, 0))  # (h, e, d) @ (h, d, b) -> (h, e, b)
    dq = dq.view(d, -1).mul_(W_k.shape[1] ** -0.5)  # (d, b)
    torch.mm(dq, query, out=d_W[:d])
    torch.bmm(q, d_folded.transpose(0, 1), out=d_W[d:2 * d].view(W_k.shape))
    torch.bmm(d_heads, mean.transpose(0, 1), out=d_W[2 * d:].view(W_v.shape))
    torch.sum(dq, 1, out=d_b[:d])
    torch.sum(d_joined, 1, out=d_b[2 * d:])
    return dq, (d_W, d_b, d_output.T @ joined.T, d_output.sum(0))


def _unit_gradient(d_output, x):
    """The gradient by x of n(x) = x / ‖x‖, row by row."""
    norm = x.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
    n = x / norm
    return (d_output - n * (n * d_output).sum(dim=-1, keepdim=True)) / norm
