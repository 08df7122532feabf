"""Inference: a small model is trained when the agent starts, and then answers prompts."""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from taskdist import Fatal, Registry

TRAINED_WITH = 1_400
"""So many of the 1,797 handwritten digits that come with scikit-learn; the rest are for tests."""

tasks = Registry()


class Prompt(BaseModel):
    """A picture of a digit: 8 × 8 shades of grey, 0 to 16."""

    pixels: list[float] = Field(min_length=64, max_length=64)


class Completion(BaseModel):
    """Which digit it most likely is."""

    digit: int
    probability: float


@dataclass
class Loaded:
    """What the agent keeps in memory between tasks."""

    model: Pipeline | None = None


loaded = Loaded()


def train() -> Pipeline:
    """The model. It is the same each time."""
    pictures, digits = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    return model.fit(pictures[:TRAINED_WITH], digits[:TRAINED_WITH])


@tasks.on_start
def load() -> None:
    """Once, before the first task is taken. A real one reads its weights here."""
    loaded.model = train()


@tasks.handler(timeout="30s", max_retries=3)
def infer(prompt: Prompt) -> Completion:
    """Which digit the picture shows."""
    if loaded.model is None:
        raise Fatal("the model is not loaded")
    (shares,) = loaded.model.predict_proba(np.array([prompt.pixels]))
    digit = int(shares.argmax())
    return Completion(digit=digit, probability=float(shares[digit]))
