"""
Fill in masked words
====================

fffcpu comes with a small FastBERT, a transformer encoder whose feedforward layers are trees. It has
read the definitions of a dictionary, and nothing else. So this lesson asks it for words of
definitions. The lesson needs the extra ``text``.
"""

# %%
# A pipeline is a model with its tokenizer. ``fill`` takes texts in which ``[MASK]`` hides a token.
# It returns the most probable tokens for each text and each mask.

import matplotlib.pyplot as plt

from fffcpu.pipelines import FillMask, default_model_folder

fill_mask = FillMask.from_pretrained(default_model_folder())
print(fill_mask)

texts = [
    "a [MASK] used for cutting wood",
    "a person who [MASK] books",
    "the quality of being [MASK]",
    "a small [MASK] that lives in water",
]
answers = fill_mask.fill(texts, top=6)
for text, (guesses,) in zip(texts, answers, strict=True):
    print(f"{text}: {', '.join(guess.token for guess in guesses)}")

# %%
# The probabilities of all 4,096 tokens sum to 1. If many words would fit, none of them is probable:
# only the tool for cutting wood gets a probability of 20%.

figure, panels = plt.subplots(2, 2, figsize=(10, 5), sharex=True, layout="constrained")
for axes, text, (guesses,) in zip(panels.flat, texts, answers, strict=True):
    axes.barh(
        [guess.token for guess in guesses],
        [guess.probability for guess in guesses],
        color="tab:purple",
    )
    axes.invert_yaxis()
    axes.set_title(text, fontsize=11)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_locator(plt.MultipleLocator(0.05))
for axes in panels[-1]:
    axes.set_xlabel("probability")
plt.show()

# %%
# What a token costs
# ------------------
# Each feedforward layer holds several trees of neurons. A token uses the neurons on one path per
# tree.

config = fill_mask.model.config
held = config.feedforward_size * (2 ** (config.depth + 1) - 1)
used = config.feedforward_size * (config.depth + 1)
print(
    f"{config.feedforward_size} trees of depth {config.depth}: {used} of {held} neurons per token"
)

# %%
# More context
# ------------
# Each word that you add changes what fits the mask. With all of its hints, the last text leads to a
# fungus and a fruit, and a fish comes third.

longer = [
    "a [MASK]",
    "a small [MASK]",
    "a small [MASK] that lives in water",
    "a small edible [MASK] that lives in salt water",
]
for text, (guesses,) in zip(longer, fill_mask.fill(longer, top=5), strict=True):
    print(f"{text}: {', '.join(f'{guess.token} {guess.probability:.2f}' for guess in guesses)}")
