"""Scenes of the picture-book and the sentences that describe them.

A scene is a kind and one value for each attribute of that kind. A caption is one of the kind's
wordings in which some, all or none of the attributes are named. A near miss is the same sentence
with one named value changed, so it catches a picture with one wrong value.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from random import Random

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
COATS = ("orange", "black", "white", "grey", "brown")
COUNTS = ("1", "2", "3", "4", "5")
SIDES = ("left", "right")
TIMES_OF_DAY = ("day", "sunset", "night", "rain")
TIME_PHRASES = {
    "day": "by day",
    "sunset": "at sunset",
    "night": "at night",
    "rain": "on a rainy day",
}

ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "tv": {"shirt": COLOURS, "sofa": COLOURS, "side": SIDES, "time": TIMES_OF_DAY},
    "dancing": {"shirt": COLOURS, "umbrella": COLOURS, "time": TIMES_OF_DAY[:3]},  # it always rains
    "fence": {"shirt": COLOURS, "fence": COLOURS, "time": TIMES_OF_DAY},
    "ball": {"shirt": COLOURS, "ball": COLOURS, "side": SIDES, "time": TIMES_OF_DAY},
    "beach": {"parasol": COLOURS, "sail": COLOURS, "side": SIDES, "time": TIMES_OF_DAY},
    "road": {"car": COLOURS, "count": COUNTS, "side": SIDES, "time": TIMES_OF_DAY},
    "cake": {"count": COUNTS, "cake": COLOURS, "table": COLOURS},
    "soda": {"soda": COLOURS, "shirt": COLOURS, "side": SIDES, "time": TIMES_OF_DAY},
    "lemon": {"shirt": COLOURS, "bowl": COLOURS, "time": TIMES_OF_DAY},
    "cat": {"cat": COATS, "shirt": COLOURS, "side": SIDES, "time": TIMES_OF_DAY},
}
SCENE_KINDS = tuple(ATTRIBUTES)

# A part in [brackets] is left out unless the attribute in it is named. The first wording of a kind,
# with nothing named, is its prompt in the reference comparison.
WORDINGS: dict[str, tuple[str, ...]] = {
    "tv": (
        "A boy[ in a {shirt} shirt] is watching TV[ on the {side}][ from a {sofa} sofa][ {time}]",
        "A boy[ with a {shirt} shirt][ on a {sofa} sofa] watching TV[ on the {side}][ {time}]",
        "A photo of a boy[ in a {shirt} shirt] watching TV[ on a {sofa} sofa]"
        "[, the TV on the {side}][, {time}]",
    ),
    "dancing": (
        "A photo of a person[ in a {shirt} shirt] dancing in the rain"
        "[ with a {umbrella} umbrella][ {time}]",
        "A person[ with a {shirt} shirt]"
        "[ and a {umbrella} umbrella] is dancing in the rain[ {time}]",
        "A person[ in a {shirt} shirt] dancing in the rain[ under a {umbrella} umbrella][, {time}]",
    ),
    "fence": (
        "A photo of a boy[ in a {shirt} shirt] jumping over a[ {fence}] fence[ {time}]",
        "A boy[ with a {shirt} shirt] is jumping over a[ {fence}] fence[ {time}]",
        "A boy[ in a {shirt} shirt] jumps over a[ {fence}] fence[, {time}]",
    ),
    "ball": (
        "A photo of a boy[ in a {shirt} shirt] is kicking a[ {ball}] ball[ to the {side}][ {time}]",
        "A boy[ with a {shirt} shirt] kicks a[ {ball}] ball[ to the {side}][ {time}]",
        "A photo of a boy[ in a {shirt} shirt] kicking a[ {ball}] ball[ to the {side}][, {time}]",
    ),
    "beach": (
        "A beach with a lot of waves on it[, a {parasol} parasol][ on the {side}]"
        "[ and a boat with a {sail} sail][ {time}]",
        "A photo of a beach with a lot of waves[, a boat with a {sail} sail]"
        "[ and a {parasol} parasol][ on the {side}]"
        "[, {time}]",
        "A beach[ {time}] with a lot of waves[, a {parasol} parasol][ on the {side}]"
        "[ and a {sail} sail]",
    ),
    "road": (
        "A road that is going down a hill[ with a {car} car][ and {count} trees]"
        "[ on the {side}][ {time}]",
        "A photo of a road going down a hill[ past {count} trees][ on the {side}]"
        "[ with a {car} car][ {time}]",
        "A road going down a hill[ {time}][, a {car} car][ and {count} trees][ on the {side}]",
    ),
    "cake": (
        "3d rendering of {count} tennis balls on top of a[ {cake}] cake[ on a {table} table]",
        "A photo of {count} tennis balls on a[ {cake}] cake[ and a {table} table]",
        "A[ {cake}] cake with {count} tennis balls on top[, on a {table} table]",
    ),
    "soda": (
        "A person[ in a {shirt} shirt] holding a drink of[ {soda}] soda[ on the {side}][ {time}]",
        "A person[ with a {shirt} shirt] is holding a drink of[ {soda}] soda"
        "[ on the {side}][ {time}]",
        "A photo of a person[ in a {shirt} shirt] holding a glass of[ {soda}] soda"
        "[ on the {side}][, {time}]",
    ),
    "lemon": (
        "A person[ in a {shirt} shirt] is squeezing a lemon[ over a {bowl} bowl][ {time}]",
        "A person[ with a {shirt} shirt] squeezing a lemon[ into a {bowl} bowl][ {time}]",
        "A photo of a person[ in a {shirt} shirt] squeezing a lemon[ over a {bowl} bowl][, {time}]",
    ),
    "cat": (
        "A person[ in a {shirt} shirt] holding a[ {cat}] cat[ on the {side}][ {time}]",
        "A person[ with a {shirt} shirt] is holding a[ {cat}] cat[ on the {side}][ {time}]",
        "A photo of a person[ in a {shirt} shirt] with a[ {cat}] cat in the arms"
        "[, on the {side}][, {time}]",
    ),
}

_OPTIONAL = re.compile(r"\[([^\[\]]*\{(\w+)\}[^\[\]]*)\]")
HELD_OUT_BYTES = 26  # of 256 first bytes of a scene's hash: a tenth of all scenes


@dataclass(frozen=True)
class Scene:
    """A kind and the value of each of its attributes, in the order of `ATTRIBUTES[kind]`."""

    kind: str
    values: tuple[str, ...]

    @property
    def attributes(self) -> dict[str, str]:
        """The values by the attributes' names."""
        return dict(zip(ATTRIBUTES[self.kind], self.values, strict=True))

    @property
    def held_out(self) -> bool:
        """True if this combination of values is kept from training."""
        # by a hash, so the split does not depend on a seed or on the order of drawing
        digest = sha256(repr((self.kind, self.values)).encode()).digest()
        return digest[0] < HELD_OUT_BYTES

    def changed(self, attribute: str, value: str) -> "Scene":
        """Return the scene with one value changed."""
        return Scene(self.kind, tuple((self.attributes | {attribute: value}).values()))


@dataclass(frozen=True)
class Caption:
    """A sentence about a scene."""

    scene: Scene
    wording: int  # index, 0 to 2
    named: frozenset[str]  # attributes in the sentence

    @property
    def text(self) -> str:
        """The sentence."""
        return render(self)

    def near_misses(self) -> list["Caption"]:
        """Return every caption with one named value changed.

        There are 15 or more if all attributes are named.
        """
        misses = []
        for name, values in ATTRIBUTES[self.scene.kind].items():
            if name in self.named:
                others = [value for value in values if value != self.scene.attributes[name]]
                scenes = [self.scene.changed(name, value) for value in others]
                misses += [Caption(scene, self.wording, self.named) for scene in scenes]
        return misses

    def holds_for(self, scene: Scene) -> bool:
        """Return True if the sentence is true of `scene`."""
        if scene.kind != self.scene.kind:
            return False
        return all(scene.attributes[name] == self.scene.attributes[name] for name in self.named)


def render(caption: Caption) -> str:
    """Return a caption's sentence."""
    values = caption.scene.attributes
    if "time" in values:
        values["time"] = TIME_PHRASES[values["time"]]
    wording = WORDINGS[caption.scene.kind][caption.wording]
    wording = _OPTIONAL.sub(lambda part: part[1] if part[2] in caption.named else "", wording)
    # the only nouns that are counted
    text = re.sub(r"\b1 (tree|tennis ball)s\b", r"1 \1", wording.format(**values))
    return with_articles(text)


def with_articles(text: str) -> str:
    """Return a text with `an` for `a` before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def always_named(kind: str, wording: int) -> frozenset[str]:
    """Return the attributes outside of a wording's brackets (the count of the tennis balls)."""
    return frozenset(re.findall(r"\{(\w+)\}", _OPTIONAL.sub("", WORDINGS[kind][wording])))


def draw_caption(scene: Scene, rng: Random, complete: float = 0.5) -> Caption:
    """Return a random caption for a scene.

    complete: probability that all attributes are named; otherwise each is with probability 0.5
    """
    wording = rng.randrange(len(WORDINGS[scene.kind]))
    all_named = rng.random() < complete
    named = frozenset(name for name in ATTRIBUTES[scene.kind] if all_named or rng.random() < 0.5)
    return Caption(scene, wording, named | always_named(scene.kind, wording))


def draw_values(kind: str, rng: Random) -> Scene:
    """Return a random scene of one kind, on either side of the split."""
    return Scene(kind, tuple(rng.choice(values) for values in ATTRIBUTES[kind].values()))


def draw_scene(rng: Random, held_out: bool) -> Scene:
    """Return a random scene from one side of the split: the kind uniform, then each value."""
    # by rejection, so that the values stay uniform within each side of the split
    while True:
        scene = draw_values(rng.choice(SCENE_KINDS), rng)
        if scene.held_out == held_out:
            return scene


def all_scenes(kind: str) -> list[Scene]:
    """Return every combination of values of one kind."""
    return [Scene(kind, values) for values in product(*ATTRIBUTES[kind].values())]


def held_out_captions(count: int, seed: int = 0) -> list[Caption]:
    """Return captions that name every attribute, of held-out scenes of one kind after another."""
    # a text as seed: other uses of the same number draw other values
    rng = Random(f"held-out {seed}")
    pools = [_held_out_scenes(kind) for kind in SCENE_KINDS]
    return [
        draw_caption(rng.choice(pools[i % len(pools)]), rng, complete=1.0) for i in range(count)
    ]


def _held_out_scenes(kind: str) -> list[Scene]:
    return [scene for scene in all_scenes(kind) if scene.held_out]


def near_miss_choices(caption: Caption, count: int = 16, seed: int = 0) -> list[str]:
    """Return sentences: the caption first, then near misses drawn without replacement.

    count: of the sentences

    Errors: ValueError if the caption names too little to have that many near misses
    """
    misses = caption.near_misses()
    if len(misses) < count - 1:
        raise ValueError(
            f"{caption.text!r} has {len(misses)} near misses, {count - 1} are needed; "
            "name more attributes"
        )
    # the same choices for the same caption, whoever asks
    sample = Random(f"misses {seed} {caption.text}").sample(misses, count - 1)
    return [caption.text, *(miss.text for miss in sample)]
