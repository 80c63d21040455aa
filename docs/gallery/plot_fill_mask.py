"""
FastBERT fills masks
====================

The package carries a small FastBERT, a transformer encoder whose feedforwards are trees. It has
read the definitions of a dictionary and nothing else, so it is asked for words of definitions. This
lesson needs the extra ``text``.
"""

# %%
# A pipeline is a model and its tokenizer. ``fill`` takes texts with ``[MASK]`` where a token is
# hidden, and returns, for each text and each mask, the likeliest tokens.

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
# Probabilities are over all tokens, and where many words would do, none is likely.

figure, panels = plt.subplots(2, 2, figsize=(10, 5), sharex=True, layout="constrained")
for axes, text, (guesses,) in zip(panels.flat, texts, answers, strict=True):
    axes.barh(
        [guess.token for guess in guesses],
        [guess.probability for guess in guesses],
        color="tab:purple",
    )
    axes.invert_yaxis()
    axes.set_title(text, fontsize=10)
for axes in panels[-1]:
    axes.set_xlabel("probability")
plt.show()

# %%
# What a token costs
# ------------------
# Each feedforward holds trees of neurons, of which a token uses those on one path a tree.

config = fill_mask.model.config
held = config.feedforward_size * (2 ** (config.depth + 1) - 1)
used = config.feedforward_size * (config.depth + 1)
print(f"{config.feedforward_size} trees of depth {config.depth}: {used} of {held} neurons a token")

# %%
# More words
# ----------
# Each word that is added changes what may stand at the mask.

longer = [
    "a [MASK]",
    "a small [MASK]",
    "a small [MASK] that lives in water",
    "a small edible [MASK] that lives in salt water",
]
for text, (guesses,) in zip(longer, fill_mask.fill(longer, top=5), strict=True):
    print(f"{text}: {', '.join(f'{guess.token} {guess.probability:.2f}' for guess in guesses)}")
