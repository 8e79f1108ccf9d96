"""RAM, the Retrieval Augmented Module of RA-CLIP as the paper built it: this file is all of it."""

import torch
from torch import nn
from torch.nn.functional import normalize as unit

CHOICES = {"normalize": ("none", "branch", "sum"), "between": ("relu", "none"), "gate": (None, "zero"),
           "attention": ("learned", "mean")}


class RAM(nn.Module):
    r"""Mix retrieved image and text features into a query by two crossed attentions per layer.

    With :math:`h_0 = v` and :math:`h_l = \mathrm{ReLU}(e_l)` between layers, each layer computes

    .. math::
        e_{l+1} = h_l + \mathrm{MHA}_{txt}(Q{=}h_l, K{=}r_{img}, V{=}r_{txt})
                      + \mathrm{MHA}_{img}(Q{=}h_l, K{=}r_{txt}, V{=}r_{img})

    The text branch asks "which retrieved *images* look like me?" and takes their texts; the image
    branch asks "which retrieved *texts* fit me?" and takes their images. The defaults are the paper's
    code (branch main, not its text); at d = 512 they have 4,202,496 parameters.

    Parameters
    ----------
    dim : int, d
    heads, layers : int, attention heads (a divisor of `dim`) and layers
    normalize : "none", "branch" or "sum"
        What Fig. 1 calls normalized is on no branch of the paper's code; both readings are here.
        "branch": each attention's output is scaled to unit length before it is added.
        "sum": the sum of both outputs is.
    between : "relu" or "none", what stands between the layers. ReLU sets every negative coordinate of
        e_1 to zero, v's own among them.
    gate : None or "zero". "zero": a learned factor per layer, zero at first, multiplies what is added,
        so that training starts from plain CLIP, or, with between="relu", from ReLU(v).
    attention : "learned" or "mean". "mean" is a control: every neighbor gets the weight 1/k, whatever the
        query. Values and outputs are projected as before; the projections of queries and keys are there but
        idle, so both have the same parameters and the same start.

    Raises
    ------
    ValueError : an unknown choice, or `heads` that doesn't divide `dim`.
    """

    def __init__(self, dim, *, heads=8, layers=2, normalize="none", between="relu", gate=None,
                 attention="learned"):
        super().__init__()
        given = {"normalize": normalize, "between": between, "gate": gate, "attention": attention}
        for name, value in given.items():
            if value not in CHOICES[name]:
                raise ValueError(f"Unknown {name}={value!r}. Known: {', '.join(map(repr, CHOICES[name]))}.")
        if layers < 1 or heads < 1 or dim % heads:
            raise ValueError(f"Expected layers >= 1 and heads that divide dim, got layers={layers}, "
                             f"heads={heads}, dim={dim}.")
        self.dim, self.options = dim, {"heads": heads, "layers": layers, **given}
        self.normalize, self.between, self.attention = normalize, between, attention
        self.text_attention = nn.ModuleList(_attention(dim, heads) for _ in range(layers))
        self.image_attention = nn.ModuleList(_attention(dim, heads) for _ in range(layers))
        self.gate = nn.Parameter(torch.zeros(layers)) if gate == "zero" else None

    def forward(self, image, r_img, r_txt, *, attend=None):
        """(b, d), (b, k, d), (b, k, d) -> (b, d), not normalized. Raises ValueError on other shapes.

        `attend` is `folded_attention` (default) or `plain_attention`: the same numbers, the first faster.
        """
        _check(image, r_img, r_txt, self.dim)
        attend = attend or folded_attention
        # keys that are all equal have equal scores: the softmax then is the plain mean, exactly
        k_img, k_txt = (r_img, r_txt) if self.attention == "learned" else (torch.zeros_like(r_img),) * 2
        e = image  # (b, d): one query per picture
        attentions = zip(self.text_attention, self.image_attention, strict=True)
        for layer, (attend_text, attend_image) in enumerate(attentions):
            h = torch.relu(e) if layer and self.between == "relu" else e
            text_branch = attend(attend_text, h, k_img, r_txt)    # (b, d)
            image_branch = attend(attend_image, h, k_txt, r_img)  # (b, d)
            added = self._combine(text_branch, image_branch)
            e = h + (added if self.gate is None else self.gate[layer] * added)
        return e

    @torch.no_grad()
    def attention_weights(self, image, r_img, r_txt):
        """How much each head takes from each neighbor: what `forward` computes on its way.

        Returns
        -------
        weights : list per layer of (text branch, image branch), each (b, heads, k), rows that sum to 1
        """
        found = []

        def attend(attention, query, keys, values):
            (W_q, W_k, _), (b_q, _, _) = _projections(attention)
            found.append(_weights(query, keys, W_q, b_q, W_k))
            return folded_attention(attention, query, keys, values)

        self(image, r_img, r_txt, attend=attend)
        return list(zip(found[::2], found[1::2], strict=True))

    def _combine(self, text, image):
        if self.normalize == "branch":
            return unit(text, dim=-1) + unit(image, dim=-1)
        return unit(text + image, dim=-1) if self.normalize == "sum" else text + image


def _attention(dim, heads):
    return nn.MultiheadAttention(dim, heads, batch_first=True)  # no dropout, no LayerNorm, no feed-forward


def plain_attention(attention, query, keys, values):
    """Multi-head attention of one query per row, as torch has it: (b, d), (b, k, d), (b, k, d) -> (b, d)."""
    return attention(query.unsqueeze(1), keys, values, need_weights=False)[0].squeeze(1)


def folded_attention(attention, query, keys, values):
    r"""`plain_attention` with the projections of keys and values folded into the query's side; exact.

    With one query, :math:`q_h \cdot (W^K_h k_j + b^K_h) = (W^{K\top}_h q_h) \cdot k_j + \text{const}`, and
    the constant cancels in the softmax; likewise
    :math:`\sum_j a_j (W^V_h v_j + b^V_h) = W^V_h \sum_j a_j v_j + b^V_h`.
    So two products per head and query replace two per head, query *and neighbor*: k times less work there.
    """
    (W_q, W_k, W_v), (b_q, _, b_v) = _projections(attention)
    mean = _weights(query, keys, W_q, b_q, W_k) @ values  # (b, h, k) @ (b, k, d) -> (b, h, d)
    per_head = torch.bmm(W_v, mean.permute(1, 2, 0))  # (h, e, d) @ (h, d, b) -> (h, e, b)
    return attention.out_proj(per_head.permute(2, 0, 1).flatten(1) + b_v)  # (b, h * e) -> (b, d)


def _projections(attention):
    """W_q, W_k, W_v, each (h, e, d) with e = d / h, and b_q, b_k, b_v, each (d)."""
    heads, d = attention.num_heads, attention.embed_dim
    return attention.in_proj_weight.view(3, heads, d // heads, d).unbind(), attention.in_proj_bias.chunk(3)


def _weights(query, keys, W_q, b_q, W_k):
    """The softmax of `folded_attention`: (b, d), (b, k, d) -> (b, h, k)."""
    heads, width, d = W_q.shape
    q = torch.nn.functional.linear(query, W_q.flatten(0, 1), b_q) / width ** 0.5  # (b, h * e)
    folded = torch.bmm(q.view(-1, heads, width).transpose(0, 1), W_k)  # (h, b, e) @ (h, e, d) -> (h, b, d)
    scores = torch.bmm(folded.transpose(0, 1), keys.transpose(1, 2))  # (b, h, d) @ (b, d, k) -> (b, h, k)
    return scores.transpose(1, 2).softmax(dim=1).transpose(1, 2)  # over a last axis as short as k it is slow


def _check(image, r_img, r_txt, dim):
    if image.ndim != 2 or image.shape[1] != dim:
        raise ValueError(f"Expected image of shape (b, {dim}), got {tuple(image.shape)}. "
                         "Make the RAM with the dimension of the features.")
    for name, block in (("r_img", r_img), ("r_txt", r_txt)):
        if (block.ndim != 3 or block.shape != r_img.shape or block.shape[::2] != image.shape
                or not block.shape[1]):
            raise ValueError(f"Expected {name} of shape ({len(image)}, k, {dim}) with one k >= 1 for images "
                             f"and texts, got {tuple(block.shape)}.")
