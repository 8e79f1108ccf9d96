"""The notebooks' exercises: for each the numbers given, the answer, and what common mistakes give.

An exercise is a few fixed numbers and a function that works on them: it computes the answer and, beside it,
what people get who make one of the common mistakes, each with the hint that sets it right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

import numpy as np
from numpy.linalg import norm


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes
    ----------
    prompt : str, the task in one line
    given : function without arguments -> dict, the numbers to compute with, fresh at every call
    work : function of these numbers -> (answer, list of (wrong answer, hint))
    """

    prompt: str
    given: Callable
    work: Callable

    @property
    def solution(self):
        return self.work(**self.given())[0]

    @property
    def hints(self):
        return self.work(**self.given())[1]


# ---- 00, 01: what CLIP computes; captions ------------------------------------------------------


def _cosine(a, b):
    dot, lengths = a @ b, norm(a) * norm(b)
    return dot / lengths, [
        (dot, "That is the dot product, which grows with the lengths. Divide by both."),
        (dot / norm(a), "Only the length of a is divided out. b has one, too."),
        (dot / norm(b), "Only the length of b is divided out. a has one, too."),
        (dot / lengths**2, "Divided by the squared lengths: is a square root missing?"),
        (np.arccos(dot / lengths), "That is the angle in radians. The exercise asks for its cosine.")]


def _prediction(image_features, class_features):
    units = class_features / norm(class_features, axis=1, keepdims=True)
    scores = image_features @ units.T  # (n, c); the length of a picture's vector changes no winner
    by_dot_product = (image_features @ class_features.T).argmax(axis=1)
    return scores.argmax(axis=1), [
        (by_dot_product,
         "These win by dot product, where a long class vector has an advantage. Scale the classes first."),
        (scores.argmax(axis=1) + 1, "Classes are counted from 0."),
        (scores.argmin(axis=1), "These are the farthest classes. Which end of the cosine means similar?"),
        (scores.argmax(axis=0), "That is the best picture of each class. Compare along the other axis.")]


def _caption(description):
    from impart_utils.sources.metadata import clean_caption

    decoded, answer = unquote_plus(description), clean_caption(description, how="paper")
    plain = decoded.replace("<b>", "").replace("</b>", "").replace("&amp;", "&")
    return answer, [
        (description, "This is the description as it came. Decode '+' and '%' first."),
        (unquote(description), "The plus signs are still there: in an address '+' stands for a space."),
        (decoded, "Decoded. Three steps are left: HTML, white space, long words."),
        (" ".join(word for word in decoded.split() if len(word) <= 25),
         "The HTML is still in it: tags such as <b>, and an ampersand written by its name."),
        (answer.replace("&", "&amp;"), "The tags are gone, but an ampersand still goes by its HTML name."),
        (plain, "Decoded and without HTML. Two steps are left: white space and long words."),
        (" ".join(plain.split()), "One word is longer than 25 characters. The paper's code drops those.")]


def _bits_apart(first, second):
    def differing(cut):
        return int(np.sum((first > cut(first)) != (second > cut(second))))

    answer = differing(np.median)
    return answer, [
        (len(first) - answer, "That is how many bits agree. How many are left?"),
        (differing(np.mean), "That cuts at the mean, which one large value moves. Take the median."),
        (differing(lambda values: 0), "That cuts at zero. Take each picture's own median."),
        (answer / len(first), "That is their share. Give the number of bits."),
        (int(np.sum(first != second)), "That compares the values. Turn each picture into bits first.")]


# ---- 02, 03: Eq. 1 and RAM ---------------------------------------------------------------------


def _eq1(v, r_img, r_txt, image_weight, text_weight):
    image, text = r_img.mean(axis=1), r_txt.mean(axis=1)  # (1, k, d) -> (1, d)
    added = image_weight * image + text_weight * text
    return v + added, [
        (v + r_img.shape[1] * added, "Too far along the right way: did you sum over the k neighbors instead "
                                     "of averaging?"),
        (added, "That is what Eq. 1 adds. To what is it added?"),
        (v + text_weight * image + image_weight * text, "The two weights are swapped."),
        (v + image_weight * (image + text), "The texts got the images' weight. They have their own."),
        (v + image + text, "The means are there, but not their weights."),
        (v + image_weight * image, "Only the images were added. What about the texts?"),
        (v + text_weight * text, "Only the texts were added. What about the images?"),
        ((v + added) / (1 + image_weight + text_weight),
         "The direction is right. Eq. 1 doesn't divide by the sum of the weights; the paper's code does."),
        ((v + added) / norm(v + added), "The direction is right. Eq. 1 doesn't scale its result.")]


def _chance_loss(batch_size):
    return 2 * np.log(batch_size), [
        (np.log(batch_size), "That is one direction, picture to text. The loss sums both."),
        (2 * np.log2(batch_size), "That is in bits. Cross-entropy takes the natural logarithm."),
        (2 * np.log10(batch_size), "That is to base 10. Cross-entropy takes the natural logarithm."),
        (-2 * np.log(batch_size), "The loss of equal scores is positive: minus the log of one over B."),
        (2 / batch_size, "That sums two probabilities. The loss takes minus their logarithms.")]


def _attention_parameters(dim):
    projection = dim**2 + dim
    return 4 * projection, [
        (4 * dim**2, "The four matrices are there. Each projection has a bias, too."),
        (3 * projection, "Query, key and value are there. What happens to the heads' output?"),
        (projection, "That is one projection. How many has an attention?"),
        (8 * projection, "That is a whole layer, with both attentions. One is asked for."),
        (16 * projection, "That is the whole RAM, with its two layers. One attention is asked for.")]


def _scores(query, picture_scores, caption_scores, image_weight, text_weight):
    pictures, captions = picture_scores.mean(axis=0), caption_scores.mean(axis=0)
    return query + image_weight * pictures + text_weight * captions, [
        (query + image_weight * picture_scores.sum(axis=0) + text_weight * caption_scores.sum(axis=0),
         "You summed over the neighbors. Eq. 1 divides by k."),
        (query + text_weight * pictures + image_weight * captions,
         "The weights are swapped: w_img belongs to the pictures."),
        (image_weight * pictures + text_weight * captions, "The query's own scores are missing."),
        (query + pictures + captions, "Both means were added without their weights.")]


# ---- 04 to 09: evaluation -----------------------------------------------------------------------


def _mended_and_broken(old, new):
    mended, broken = int(np.sum(~old & new)), int(np.sum(old & ~new))
    return (mended, broken), [
        ((broken, mended), "The two are swapped: mended means wrong before, right now."),
        ((int(np.sum(~old)), int(np.sum(~new))),
         "These are each method's errors. Pictures that both have wrong count on neither side."),
        ((int(np.sum(new)), int(np.sum(old))),
         "These are each method's right ones. Pictures that both have right count on neither side."),
        (mended - broken, "That is the net difference, which hides how many decisions changed. Give both.")]


def _normalized_branch(h, a):
    rows = norm(a, axis=1, keepdims=True)
    return h + a / rows, [
        (h + a, "Added as they are, the long rows of a drown h. Scale them first."),
        ((h + a) / norm(h + a, axis=1, keepdims=True), "You scaled the sum. Scale what is added, then add."),
        (h / norm(h, axis=1, keepdims=True) + a / rows, "h was scaled as well. It stays as it is."),
        (h + a / norm(a), "One length for the whole array. Each row has its own: axis=1."),
        (h + a / norm(a, axis=0), "These are the columns' lengths. A vector is a row: axis=1."),
        (a / rows, "The scaled branch is right. Add it to h.")]


def _rank(similarities, truth):
    own = similarities[truth]
    better, as_good = int(np.sum(similarities > own)), int(np.sum(similarities >= own))  # with itself
    return as_good, [
        (better + 1, "That has ties in our favor: a model that gives all films one score would be perfect."),
        (as_good - 1, "Ranks count from 1, not from 0."),
        (better, "Ranks count from 1, and ties go against us."),
        ((better + 1 + as_good) / 2, "That is the mean over the tied places. Here the worst of them counts."),
        (int(np.sum(similarities <= own)), "Counted from the bad end: larger is more similar.")]


def _recall_at_5(ranks):
    return float(np.mean(ranks <= 5)), [
        (float(np.mean(ranks < 5)), "Rank 5 itself is among the first five."),
        (int(np.sum(ranks <= 5)), "That is their number. R@5 is a share of all queries."),
        (100 * float(np.mean(ranks <= 5)), "That is in percent. Give the fraction."),
        (float(np.mean(ranks == 5)), "These are the queries with rank exactly 5. Better ranks count, too."),
        (float(np.mean(1 / ranks)), "That is the mean reciprocal rank.")]


def _wilson(correct, n):
    z, p = 1.959963984540054, correct / n
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    wald = z * np.sqrt(p * (1 - p) / n)
    return (low, high), [
        ((p - wald, p + wald), "That is Wald's interval, which can leave 0 to 1. Use Wilson's."),
        ((100 * low, 100 * high), "That is in percent. Give fractions."),
        ((high, low), "The lower end comes first."),
        (high - low, "That is the width. Give both ends."),
        ((low * (1 + z**2 / n), high * (1 + z**2 / n)), "The division by 1 + z²/n is missing.")]


def _paired_gain(none, branch):
    gains = 100 * (branch - none)
    return float(gains.mean()), [
        (-float(gains.mean()), "The sign is turned: how much better is branch?"),
        (float(gains.mean()) / 100, "That is a fraction. Points are a hundred times that."),
        (100 * float(branch.max() - none.max()), "That compares the luckiest seeds. Take all of them."),
        (float(np.mean(gains > 0)), "That is the share of seeds that gain, not by how much.")]


def _temporal_iou(first, second):
    def length(window):
        return float(window[1] - window[0])

    shared = max(0.0, float(min(first[1], second[1]) - max(first[0], second[0])))
    around = float(max(first[1], second[1]) - min(first[0], second[0]))
    union = length(first) + length(second) - shared
    return shared / union, [
        (shared, "That is what they share, in seconds. Divide by what both together cover."),
        (shared / (length(first) + length(second)), "The shared part counts twice below. Take it off once."),
        (shared / length(first), "That is the share of the first window. The union has the second, too."),
        (shared / length(second), "That is the share of the second window. The union has the first, too."),
        (union / shared, "Upside down: the intersection over the union."),
        ((length(first) + length(second)) / around, "The lengths' sum is no intersection.")]


def _best_window(curve, windows):
    inside = np.array([curve[start:end].mean() for start, end in windows])
    outside = np.array([np.delete(curve, np.arange(start, end)).mean() for start, end in windows])
    score, total = inside - outside, np.array([curve[start:end].sum() for start, end in windows])
    best = int(score.argmax())
    return (best, float(score[best])), [
        ((int(inside.argmax()), float(inside.max())), "That is the mean inside. How much does it stand out?"),
        ((best, float(inside[best])), "The window is right. Take the mean outside it off."),
        ((int(total.argmax()), float(total.max())), "A sum grows with the window. Take means."),
        ((best, float(inside[best] - curve.mean())),
         "Compare with the rest of the film, without the window itself."),
        ((int(score.argmin()), float(score.min())), "That one stands out least."),
        (best, "Give its score, too.")]


def _two_differences(method, clip, control):
    to_clip, to_control = (100 * float(method.mean() - other.mean()) for other in (clip, control))
    return (to_clip, to_control), [
        ((to_clip / 100, to_control / 100), "These are fractions. Points are a hundred times that."),
        ((to_control, to_clip), "The two are swapped: CLIP first, then the control."),
        ((-to_clip, -to_control), "The signs are turned: the method minus the other."),
        ((to_clip, 100 * float(control.mean() - clip.mean())),
         "The second compares the control with CLIP. Compare the method with the control."),
        (to_clip, "That is one comparison. Better than CLIP alone doesn't show that retrieval did it.")]


def _optimism(tuning, test):
    honest, best = float(test[tuning.argmax()]), float(test.max())
    return (honest, best - honest), [
        ((best, 0.0), "That setting was chosen on the test set. Choose on the tuning split."),
        ((float(tuning.max()), best - float(tuning.max())),
         "That is the accuracy on the tuning split. Report the test's."),
        (honest, "That is what you may report. Give the optimism beside it."),
        ((honest, honest - best), "The sign is turned: by how much would the best on test flatter?")]


def _holm_of_three(p_values):
    order, m = np.argsort(p_values), len(p_values)
    steps = np.maximum.accumulate(p_values[order] * (m - np.arange(m)))
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(steps, 1)
    unordered = np.minimum(p_values * (m - np.argsort(np.argsort(p_values))), 1)
    return adjusted, [
        (np.minimum(p_values * m, 1), "That is Bonferroni's: each p times the count. Holm steps down."),
        (p_values, "These are the p values as they were."),
        (unordered, "An adjusted p may not fall below that of a smaller one: carry the maximum along."),
        (adjusted[order], "Sorted. Give them in the order of the p values.")]


def _verdict(paper, ours):
    return "not comparable", [
        ("reproduced", "The paper's value lies inside the interval, but compare the protocols first."),
        ("not reproduced", "The paper's value does lie inside. And compare the protocols first."),
        ("inconclusive", "That is for too few pictures under the same protocol. Is it the same?")]


EXERCISES = {
    "0.1": Exercise("The cosine of a and b: their dot product over the product of their lengths.",
                    lambda: {"a": np.array([3.0, 4.0]), "b": np.array([12.0, 5.0])}, _cosine),
    "0.2": Exercise("For each picture, a row of image_features, the class with the largest cosine.",
                    lambda: {"image_features": np.array([[2.0, 0.1, 0.0], [0.0, 1.0, 0.4], [1.0, 0.9, 0.1],
                                                         [0.2, 0.1, 3.0]]),
                             "class_features": np.array([[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.3, 0.5]])},
                    _prediction),
    "1.1": Exercise("Decode, strip the HTML, collapse white space, drop words of more than 25 characters.",
                    lambda: {"description": "Tom+%26amp%3B+I%3A+our+boat%2C+%3Cb%3Eat+last%3C%2Fb%3E%0A%0A"
                                            "in+the+harbor+wwwexampleorgholidaysonaboat"}, _caption),
    "1.2": Exercise("The number of places at which the two hashes differ, a whole number.",
                    lambda: {"first": np.array([9.0, -2.0, 0.5, -0.1, 3.0, -4.0, 0.2, 1.0]),
                             "second": np.array([8.0, 0.6, -1.0, 0.1, 2.5, -3.0, -0.2, 1.5])}, _bits_apart),
    "2.1": Exercise("Eq. 1: v plus the weighted means over the k neighbors, shape (1, d) as v.",
                    lambda: {"v": np.array([[1.0, 0.0, 0.5]]),
                             "r_img": np.array([[[0.8, 0.4, 0.0], [0.2, 1.0, 0.6]]]),
                             "r_txt": np.array([[[0.0, 0.6, 1.0], [0.4, 0.2, -0.2]]]),
                             "image_weight": 0.5, "text_weight": 0.2}, _eq1),
    "2.2": Exercise("The query's scores plus the weighted mean scores of pictures and captions.",
                    lambda: {"query": np.array([0.24, 0.26, 0.10]),
                             "picture_scores": np.array([[0.30, 0.20, 0.10], [0.26, 0.16, 0.22]]),
                             "caption_scores": np.array([[0.80, 0.60, 0.50], [0.70, 0.64, 0.48]]),
                             "image_weight": 0.5, "text_weight": 0.1}, _scores),
    "3.1": Exercise("With equal scores each candidate has probability 1/B; the loss sums both directions.",
                    lambda: {"batch_size": 64}, _chance_loss),
    "3.2": Exercise("Four projections from d to d (query, key, value, output), each a matrix and a bias.",
                    lambda: {"dim": 512}, _attention_parameters),
    "4.1": Exercise("(mended, broken): pictures that only the new, and that only the old method has right.",
                    lambda: {"old": np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool),
                             "new": np.array([1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0], dtype=bool)},
                    _mended_and_broken),
    "4.2": Exercise("Wilson's 95 % interval as (low, high), fractions.",
                    lambda: {"correct": 29, "n": 30}, _wilson),
    "5.1": Exercise("Each row of a scaled to length 1, then added to the same row of h.",
                    lambda: {"h": np.array([[1.0, 0.0], [0.0, 2.0]]),
                             "a": np.array([[6.0, 8.0], [0.3, -0.4]])},
                    _normalized_branch),
    "5.2": Exercise("The mean over seeds of branch minus none, in points.",
                    lambda: {"none": np.array([0.780, 0.764, 0.772, 0.790, 0.769]),
                             "branch": np.array([0.788, 0.760, 0.781, 0.786, 0.780])}, _paired_gain),
    "6.1": Exercise("The rank, from 1, of film `truth`; a film with the same score stands before it.",
                    lambda: {"similarities": np.array([0.31, 0.42, 0.55, 0.42, 0.10, 0.42, 0.50, 0.42, 0.05]),
                             "truth": 3}, _rank),
    "6.2": Exercise("The share of the ranks that are at most 5.",
                    lambda: {"ranks": np.array([1, 3, 5, 6, 12, 2, 40, 5])}, _recall_at_5),
    "7.1": Exercise("(method - CLIP, method - control) in points.",
                    lambda: {"method": np.array([1, 1, 1, 1, 0, 1, 1, 0, 1, 1], dtype=bool),
                             "clip": np.array([1, 1, 0, 1, 0, 1, 1, 0, 1, 0], dtype=bool),
                             "control": np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 1], dtype=bool)},
                    _two_differences),
    "7.2": Exercise("(test accuracy of the setting chosen on the tuning split, best on test minus that).",
                    lambda: {"tuning": np.array([0.602, 0.615, 0.631, 0.618]),
                             "test": np.array([0.611, 0.627, 0.609, 0.604])}, _optimism),
    "8.1": Exercise("What both windows (start, end) share over what both together cover, in seconds.",
                    lambda: {"first": np.array([12.0, 20.0]), "second": np.array([17.0, 27.5])},
                    _temporal_iou),
    "8.2": Exercise("(row of the window with the largest mean inside minus mean outside, that difference).",
                    lambda: {"curve": np.array([0.20, 0.19, 0.29, 0.30, 0.28, 0.31, 0.18, 0.19]),
                             "windows": np.array([[2, 4], [2, 6], [5, 6], [1, 7]])}, _best_window),
    "9.1": Exercise('One of "reproduced", "not reproduced", "not comparable", "inconclusive".',
                    lambda: {"paper": {"data set": "CIFAR-10", "pictures": 10_000,
                                       "prompt": "a photo of a {}", "accuracy": 0.8878},
                             "ours": {"data set": "CIFAR-10", "pictures": 500, "prompt": "a photo of a {}",
                                      "accuracy": 0.898, "95 % interval": (0.868, 0.922)}}, _verdict),
    "9.2": Exercise("Holm's p values, in the order given.",
                    lambda: {"p_values": np.array([0.030, 0.004, 0.021])}, _holm_of_three),
}
