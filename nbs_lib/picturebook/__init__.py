"""The picture-book: an embedded data set of captioned scenes, and the tiny base trained on them.

captions         scenes, the sentences that describe them, near misses
canvas           colours, strokes, skies
people           persons, whole or head and shoulders
figures          scenes with whole persons
portraits        scenes with head and shoulders
still_scenes     scenes without persons
draw             a scene's picture
snowmen          a kind of scene that the base was not trained on
dataset          many scenes with their pictures, from a seed
words            the words that a base learned, in a file beside its weights
caption_ranking  CLIP ranks a picture's caption among near misses
training/        the training of the base
base/            its weights
"""
