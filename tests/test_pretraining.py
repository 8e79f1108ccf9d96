"""CLIP trained for shorter and longer, with and without retrieval."""

import pytest

from impart_utils.config import load_config
from impart_utils.evidence.pretraining import gain_over_training


@pytest.mark.slow
def test_longer_training_recognizes_more(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    monkeypatch.delenv("IMPART_CACHE", raising=False)
    config = load_config("demo", datasets="toy10", limit=400, pairs=400, references=100)
    table = gain_over_training(config, steps=(2, 40), with_ram=False)
    assert list(table.columns) == ["steps", "seconds", "dataset", "method", "accuracy"]
    by = table.pivot(index="steps", columns="method", values="accuracy")
    assert by.loc[40, "CLIP"] > by.loc[2, "CLIP"] + 0.05  # it does learn
    assert by.loc[2, "CLIP"] < 0.3
    again = gain_over_training(config, steps=(2, 40), with_ram=False)
    assert again.equals(table)  # from the cache, its clock too


def test_only_the_toy_world_can_be_trained():
    with pytest.raises(ValueError, match="demo profile"):
        gain_over_training(load_config("paper"))
