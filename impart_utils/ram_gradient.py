"""The loss of a batch with RAM's gradient written out: the numbers of `loss.backward()`, but quicker.

A toy batch is so small that recording and replaying each operation costs automatic differentiation as much
as the products themselves. `RAM.forward` and `contrastive_loss` are the plain form beside it.
"""

import torch

from impart_utils.contrastive import loss_and_gradient, unit_backward
from impart_utils.ram import _projections


@torch.no_grad()
def backward(ram, log_temperature, image, r_img, r_txt, text):
    """Put the gradient of a batch's loss into `.grad` of RAM's parameters (and of a learned ln T).

    As these lines do where no parameter has a gradient yet; features are constants, since CLIP is frozen:

        loss = contrastive_loss(ram(image, r_img, r_txt), text, log_temperature.exp())
        loss.backward()

    Parameters
    ----------
    ram : RAM;  log_temperature : tensor (), ln T;  image, text : tensors (b, d);  r_img, r_txt : (b, k, d)

    Returns
    -------
    loss : float, before any step
    """
    attentions = []  # of each on the way of `RAM.forward`, what the gradient needs

    def attend(attention, query, keys, values):
        output, kept = _attend(attention, query, keys, values)
        attentions.append((output, query, kept))
        return output

    output = ram.forward(image, r_img, r_txt, attend=attend)
    loss, de, d_log_temperature = loss_and_gradient(output, text, log_temperature.exp())
    if log_temperature.requires_grad:
        log_temperature.grad = d_log_temperature
    if ram.gate is not None:
        ram.gate.grad = torch.zeros_like(ram.gate)
    for layer in reversed(range(ram.options["layers"])):
        (text_branch, h, _), (image_branch, _, _) = branches = attentions[2 * layer:2 * layer + 2]
        d_added, dh = de, de
        if ram.gate is not None:
            ram.gate.grad[layer] = (de * ram._combine(text_branch, image_branch)).sum()
            d_added = ram.gate[layer] * de
        if ram.normalize == "sum":
            d_added = unit_backward(d_added, text_branch + image_branch)
        for attention, (output, _, kept) in zip((ram.text_attention[layer], ram.image_attention[layer]),
                                                branches, strict=True):
            d_output = unit_backward(d_added, output) if ram.normalize == "branch" else d_added
            dq = _attend_backward(attention, d_output, h, *kept)
            if layer:  # before layer 1 stands the picture, a constant
                dh = dh + dq.T @ kept[0].flatten(0, 1)  # by W_q
        de = dh * (h > 0) if ram.between == "relu" else dh
    return loss


def _attend(attention, query, keys, values):
    """`folded_attention`: its output (b, d), and what `_attend_backward` needs of the way to it.

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


def _attend_backward(attention, d_output, query, W_q, W_k, W_v, W_o, keys, values, q, a, mean, joined):
    """From d_output (b, d): those by the weights, into their `.grad`, and, returned, that by q, (d, b)."""
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
    attention.in_proj_weight.grad, attention.in_proj_bias.grad = d_W, d_b
    attention.out_proj.weight.grad, attention.out_proj.bias.grad = d_output.T @ joined.T, d_output.sum(0)
    return dq
