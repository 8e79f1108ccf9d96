"""Zero-shot classification: class features, predictions, accuracies, against loops and by hand."""

import numpy as np
import pytest

from impart_utils.zeroshot import (
    PAPER_TEMPLATE,
    accuracy,
    class_features,
    logits,
    mean_per_class_accuracy,
    predict,
    unit,
)

TEMPLATES = ("a photo of a {}", "a drawing of the {}.", "{} outdoors")


def fake_encoder(d=5):
    """Text -> a vector that depends on the whole string, of any length but one; notes what it was asked."""
    asked = []

    def encode(texts):
        assert isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        asked.extend(texts)
        return np.array([one(text) for text in texts], np.float32)

    def one(text):
        rng = np.random.default_rng(list(text.encode()))
        return rng.normal(size=d) * rng.uniform(1, 9)

    return encode, one, asked


def test_papers_template():
    encode, _, asked = fake_encoder()
    class_features(encode, ["cat", "aquarium_fish"])
    assert PAPER_TEMPLATE == "a photo of a {}"
    assert asked == ["a photo of a cat", "a photo of a aquarium_fish"]  # names as they are, no full stop


def test_class_features_equal_a_loop_over_classes_and_templates():
    encode, one, asked = fake_encoder()
    names = ["cat", "dog", "fire truck", "c{ur}ly"]
    W = class_features(encode, names, TEMPLATES)
    for row, name in enumerate(names):
        mean = np.zeros(5)
        for template in TEMPLATES:
            vector = one(template.replace("{}", name))
            mean += vector / np.sqrt((vector ** 2).sum()) / len(TEMPLATES)
        np.testing.assert_allclose(W[row], mean / np.sqrt((mean ** 2).sum()), atol=1e-6)
    assert sorted(asked) == sorted(template.replace("{}", name) for name in names for template in TEMPLATES)


def test_only_the_place_of_the_name_is_filled_in():
    """No str.format: other braces, percent signs and braces inside a name stay as they are."""
    encode, _, asked = fake_encoder()
    class_features(encode, ["{0}", "50%"], ["{} {style}", "{{}} %s {}", "{} and {}"])
    assert asked == ["{0} {style}", "{{0}} %s {0}", "{0} and {0}",
                     "50% {style}", "{50%} %s 50%", "50% and 50%"]


def test_each_prompt_counts_the_same_whatever_its_length():
    # directions (1,0) and (0,1), the second a hundred times longer: the class lies between both
    vectors = {"long cat": [100.0, 0.0], "short cat": [0.0, 1.0]}
    W = class_features(
        lambda texts: np.array([vectors[text] for text in texts]), ["cat"], ["long {}", "short {}"]
    )
    np.testing.assert_allclose(W, [[0.5 ** 0.5, 0.5 ** 0.5]], atol=1e-7)


def test_class_features_are_unit_rows_and_one_template_may_be_a_string():
    encode, _, _ = fake_encoder()
    W = class_features(encode, ["cat", "dog"], "a {}")
    np.testing.assert_allclose(np.linalg.norm(W, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(W, class_features(encode, ("cat", "dog"), ["a {}"]))


@pytest.mark.parametrize("names, templates, message", [
    ([], ["a {}"], "at least one class name and one template, got 0 names and 1 templates"),
    (["cat"], [], "at least one class name and one template, got 1 names and 0 templates"),
    (["cat"], ["a {}", "a photo"], r"Expected '\{\}' in each template, for the class name; got 'a photo'"),
    (["cat"], "a %s", r"got 'a %s'"),
])
def test_prompts_that_can_not_be_made(names, templates, message):
    with pytest.raises(ValueError, match=message):
        class_features(fake_encoder()[0], names, templates)


def test_prompts_that_cancel_or_are_zero():
    with pytest.raises(ValueError, match="Row 1 of .* is zero or not finite"):
        class_features(lambda texts: np.array([[1.0, 0.0], [0.0, 0.0]]), ["cat", "dog"])
    opposite = {"a cat": [1.0, 0.0], "no cat": [-1.0, 0.0]}
    with pytest.raises(ValueError, match="zero or not finite"):
        class_features(lambda texts: np.array([opposite[text] for text in texts]), ["cat"], ["a {}", "no {}"])


def test_logits_by_hand():
    # (3, 4) / 5 against (1, 0) and (0, -1): cosines 0.6 and -0.8, whatever the class vectors' lengths
    result = logits([[3.0, 4.0], [0.0, 2.0]], [[7.0, 0.0], [0.0, -0.1]])
    np.testing.assert_allclose(result, [[60, -80], [0, -100]], atol=1e-5)
    np.testing.assert_allclose(logits([[3.0, 4.0]], [[7.0, 0.0]], scale=1.0), [[0.6]], atol=1e-7)


def test_predict_by_hand():
    classes = [[1, 0], [0, 1], [-1, -1]]
    pictures = [[9, 1], [0.1, 0.2], [-3, -3.5], [-5, 0.1], [-1, 9]]
    np.testing.assert_array_equal(predict(pictures, classes), [0, 1, 2, 2, 1])


def test_predict_is_cosine_not_dot_product():
    # by dot product the long second class would win
    np.testing.assert_array_equal(predict([[2.0, 1.0]], [[1.0, 0.0], [30.0, 60.0]]), [0])


def test_predict_equals_a_slow_loop_and_ignores_norms():
    rng = np.random.default_rng(0)
    v, W = rng.normal(size=(80, 7)), rng.normal(size=(11, 7)) * rng.uniform(0.1, 9, (11, 1))
    slow = []
    for row in v:
        scores = [sum(a * b for a, b in zip(row, w, strict=True)) / (w ** 2).sum() ** 0.5 for w in W]
        slow.append(scores.index(max(scores)))
    np.testing.assert_array_equal(predict(v, W), slow)
    scaled = v * rng.uniform(1e-3, 1e3, (80, 1))
    np.testing.assert_array_equal(predict(scaled.astype(np.float32), W.astype(np.float32)), slow)


def test_of_equal_classes_the_first_is_predicted():
    W = np.array([[0, 1], [1, 0], [2, 0], [1, 0]], np.float32)
    np.testing.assert_array_equal(predict(np.array([[3, 0], [0, 1]], np.float32), W), [1, 0])
    rng = np.random.default_rng(1)
    copies = rng.normal(size=(7, 512)).astype(np.float32)
    assert predict(rng.normal(size=(300, 512)), np.concatenate([copies, copies])).max() < 7
    for count in (1, 3, 300):
        scores = logits(rng.normal(size=(count, 512)), np.concatenate([copies, copies]))
        np.testing.assert_array_equal(scores[:, :7], scores[:, 7:])


def test_half_precision_is_computed_in_single():
    rng = np.random.default_rng(2)
    v, W = (10 * rng.normal(size=(200, 64))).astype(np.float16), rng.normal(size=(10, 64)).astype(np.float16)
    result = logits(v, W)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(predict(v, W), predict(v.astype(np.float64), W.astype(np.float64)))
    v[:, 0] = 60000  # whose square half precision can't hold
    assert np.isfinite(logits(v, W)).all()


def test_inputs_stay_untouched():
    v, W = np.full((2, 3), 5.0, np.float32), np.full((4, 3), 7.0, np.float32)
    predict(v, W)
    assert (v == 5).all() and (W == 7).all()


def test_no_picture_gives_no_prediction():
    assert predict(np.zeros((0, 3)), np.eye(3)).shape == (0,)


@pytest.mark.parametrize("v, W", [((3, 4), (2, 5)), ((4,), (2, 4)), ((3, 4), (4,)), ((3, 2, 4), (2, 4))])
def test_shapes_that_do_not_fit(v, W):
    with pytest.raises(ValueError, match=r"image_features \(n, d\) and class_features \(c, d\) with one d"):
        predict(np.ones(v), np.ones(W))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_rows_without_a_direction_are_named(value):
    bad = np.ones((4, 3))
    bad[2] = value
    with pytest.raises(ValueError, match="Row 2 of image_features is zero or not finite"):
        predict(bad, np.eye(3))
    with pytest.raises(ValueError, match="Row 2 of class_features is zero or not finite"):
        predict(np.ones((4, 3)), bad)


def test_accuracy_by_hand():
    predictions, labels = [0, 1, 1, 2, 0], [0, 1, 2, 2, 1]
    assert accuracy(predictions, labels) == 0.6
    assert isinstance(accuracy(predictions, labels), float)


def test_mean_per_class_by_hand_where_classes_are_uneven():
    # class 0: 9 of 9 right; class 1: 0 of 1; class 5: 1 of 2
    labels = [0] * 9 + [1] + [5, 5]
    predictions = [0] * 9 + [0] + [5, 0]
    assert accuracy(predictions, labels) == pytest.approx(10 / 12)
    assert mean_per_class_accuracy(predictions, labels) == pytest.approx((1 + 0 + 0.5) / 3)


def test_mean_per_class_equals_accuracy_for_even_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 20)
    predictions = rng.integers(0, 10, 200)
    assert mean_per_class_accuracy(predictions, labels) == pytest.approx(accuracy(predictions, labels))


def test_a_class_that_is_only_predicted_counts_for_nothing():
    assert mean_per_class_accuracy([3, 0], [0, 0]) == 0.5


@pytest.mark.parametrize("function", [accuracy, mean_per_class_accuracy])
@pytest.mark.parametrize("predictions, labels", [([0, 1], [0]), ([], []), ([[0, 1]], [[0, 1]])])
def test_predictions_and_labels_that_do_not_fit(function, predictions, labels):
    with pytest.raises(ValueError, match=r"predictions and labels of one shape \(n,\) with n >= 1"):
        function(predictions, labels)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_unit_divides_by_the_last_axis(shape):
    x = np.random.default_rng(0).normal(size=shape)
    result = unit(x)
    np.testing.assert_allclose((result ** 2).sum(axis=-1), 1)
    np.testing.assert_allclose(result * np.sqrt((x ** 2).sum(axis=-1))[..., None], x)


def test_unit_keeps_the_precision_and_lifts_half_and_whole_numbers():
    assert unit(np.ones((2, 3), np.float32)).dtype == np.float32
    assert unit(np.ones((2, 3), np.float64)).dtype == np.float64
    assert unit(np.ones((2, 3), np.float16)).dtype == unit([[3, 4]]).dtype == np.float32
    np.testing.assert_allclose(unit([[3, 4]]), [[0.6, 0.8]], atol=1e-7)


def test_unit_of_a_single_zero_vector_has_its_message():
    with pytest.raises(ValueError, match="is zero or not finite"):
        unit(np.zeros(3))
    with pytest.raises(ValueError, match="Row 1 of r_img is zero or not finite"):
        unit(np.array([np.ones((2, 3)), [[1, 1, 1], [0, 0, 0]]]), "r_img")
