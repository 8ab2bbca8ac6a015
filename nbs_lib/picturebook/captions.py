"""What a picture-book scene can be, and the sentences that say so.

A scene is a kind and one value for each attribute of that kind. A caption is one of the kind's wordings in which some,
all or none of the attributes are named. A near miss is the same sentence with one named value changed, so a picture
that got the prompt wrong can be caught by its best near miss.
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
TIMES = ("day", "sunset", "night", "rain")
TIME_PHRASES = {
    "day": "by day",
    "sunset": "at sunset",
    "night": "at night",
    "rain": "on a rainy day",
}

ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "tv": {"shirt": COLOURS, "sofa": COLOURS, "side": SIDES, "time": TIMES},
    "dancing": {"shirt": COLOURS, "umbrella": COLOURS, "time": TIMES[:3]},
    "fence": {"shirt": COLOURS, "fence": COLOURS, "time": TIMES},
    "ball": {"shirt": COLOURS, "ball": COLOURS, "side": SIDES, "time": TIMES},
    "beach": {"parasol": COLOURS, "sail": COLOURS, "side": SIDES, "time": TIMES},
    "road": {"car": COLOURS, "count": COUNTS, "side": SIDES, "time": TIMES},
    "cake": {"count": COUNTS, "cake": COLOURS, "table": COLOURS},
    "soda": {"soda": COLOURS, "shirt": COLOURS, "side": SIDES, "time": TIMES},
    "lemon": {"shirt": COLOURS, "bowl": COLOURS, "time": TIMES},
    "cat": {"cat": COATS, "shirt": COLOURS, "side": SIDES, "time": TIMES},
}
KINDS = tuple(ATTRIBUTES)

# A part in [brackets] is said only if the attribute in it is named. The first wording of a kind, with nothing named,
# is its prompt of the reference comparison.
WORDINGS: dict[str, tuple[str, ...]] = {
    "tv": (
        "A boy[ in a {shirt} shirt] is watching TV[ on the {side}][ from a {sofa} sofa][ {time}]",
        "A boy[ with a {shirt} shirt][ on a {sofa} sofa] watching TV[ on the {side}][ {time}]",
        "A photo of a boy[ in a {shirt} shirt] watching TV[ on a {sofa} sofa][, the TV on the {side}][, {time}]",
    ),
    "dancing": (
        "A photo of a person[ in a {shirt} shirt] dancing in the rain[ with a {umbrella} umbrella][ {time}]",
        "A person[ with a {shirt} shirt][ and a {umbrella} umbrella] is dancing in the rain[ {time}]",
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
        "A beach with a lot of waves on it[, a {parasol} parasol][ on the {side}][ and a boat with a {sail} sail][ {time}]",
        "A photo of a beach with a lot of waves[, a boat with a {sail} sail][ and a {parasol} parasol][ on the {side}]"
        "[, {time}]",
        "A beach[ {time}] with a lot of waves[, a {parasol} parasol][ on the {side}][ and a {sail} sail]",
    ),
    "road": (
        "A road that is going down a hill[ with a {car} car][ and {count} trees][ on the {side}][ {time}]",
        "A photo of a road going down a hill[ past {count} trees][ on the {side}][ with a {car} car][ {time}]",
        "A road going down a hill[ {time}][, a {car} car][ and {count} trees][ on the {side}]",
    ),
    "cake": (
        "3d rendering of {count} tennis balls on top of a[ {cake}] cake[ on a {table} table]",
        "A photo of {count} tennis balls on a[ {cake}] cake[ and a {table} table]",
        "A[ {cake}] cake with {count} tennis balls on top[, on a {table} table]",
    ),
    "soda": (
        "A person[ in a {shirt} shirt] holding a drink of[ {soda}] soda[ on the {side}][ {time}]",
        "A person[ with a {shirt} shirt] is holding a drink of[ {soda}] soda[ on the {side}][ {time}]",
        "A photo of a person[ in a {shirt} shirt] holding a glass of[ {soda}] soda[ on the {side}][, {time}]",
    ),
    "lemon": (
        "A person[ in a {shirt} shirt] is squeezing a lemon[ over a {bowl} bowl][ {time}]",
        "A person[ with a {shirt} shirt] squeezing a lemon[ into a {bowl} bowl][ {time}]",
        "A photo of a person[ in a {shirt} shirt] squeezing a lemon[ over a {bowl} bowl][, {time}]",
    ),
    "cat": (
        "A person[ in a {shirt} shirt] holding a[ {cat}] cat[ on the {side}][ {time}]",
        "A person[ with a {shirt} shirt] is holding a[ {cat}] cat[ on the {side}][ {time}]",
        "A photo of a person[ in a {shirt} shirt] with a[ {cat}] cat in the arms[, on the {side}][, {time}]",
    ),
}

_OPTIONAL = re.compile(r"\[([^\[\]]*\{(\w+)\}[^\[\]]*)\]")


@dataclass(frozen=True)
class Scene:
    """A kind and the value of each of its attributes, in the order of `ATTRIBUTES[kind]`."""

    kind: str
    values: tuple[str, ...]

    @property
    def attributes(self) -> dict[str, str]:
        return dict(zip(ATTRIBUTES[self.kind], self.values, strict=True))

    @property
    def held_out(self) -> bool:
        """Whether this combination of values is kept from training: a tenth of all, chosen by its hash."""
        return sha256(repr((self.kind, self.values)).encode()).digest()[0] < 26

    def changed(self, attribute: str, value: str) -> "Scene":
        return Scene(self.kind, tuple((self.attributes | {attribute: value}).values()))


@dataclass(frozen=True)
class Caption:
    """A sentence: a scene, the wording's index (0 to 2) and the attributes it names."""

    scene: Scene
    wording: int
    named: frozenset[str]

    @property
    def text(self) -> str:
        return render(self)

    def near_misses(self) -> list["Caption"]:
        """Every caption with one named value changed; 15 or more where all attributes are named."""
        allowed = ATTRIBUTES[self.scene.kind]
        return [
            Caption(self.scene.changed(name, value), self.wording, self.named)
            for name in allowed
            if name in self.named
            for value in allowed[name]
            if value != self.scene.attributes[name]
        ]

    def holds_for(self, scene: Scene) -> bool:
        """Whether the sentence is true of `scene`."""
        if scene.kind != self.scene.kind:
            return False
        return all(scene.attributes[name] == self.scene.attributes[name] for name in self.named)


def render(caption: Caption) -> str:
    """The caption in words."""
    values = caption.scene.attributes
    if "time" in values:
        values["time"] = TIME_PHRASES[values["time"]]
    wording = WORDINGS[caption.scene.kind][caption.wording]
    text = _OPTIONAL.sub(lambda part: part[1] if part[2] in caption.named else "", wording).format(
        **values
    )
    text = re.sub(r"\b1 (tree|tennis ball)s\b", r"1 \1", text)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def always_named(kind: str, wording: int) -> frozenset[str]:
    """The attributes that a wording names whatever is asked (the count of the tennis balls)."""
    return frozenset(re.findall(r"\{(\w+)\}", _OPTIONAL.sub("", WORDINGS[kind][wording])))


def draw_caption(scene: Scene, rng: Random, complete: float = 0.5) -> Caption:
    """A caption for `scene`: every attribute named with probability `complete`, else each with probability one half."""
    wording = rng.randrange(len(WORDINGS[scene.kind]))
    whole = rng.random() < complete
    named = frozenset(name for name in ATTRIBUTES[scene.kind] if whole or rng.random() < 0.5)
    return Caption(scene, wording, named | always_named(scene.kind, wording))


def draw_scene(rng: Random, held_out: bool) -> Scene:
    """A scene from one side of the split: the kind uniform, then each value uniform."""
    while True:
        kind = rng.choice(KINDS)
        scene = Scene(kind, tuple(rng.choice(values) for values in ATTRIBUTES[kind].values()))
        if scene.held_out == held_out:
            return scene


def all_scenes(kind: str) -> list[Scene]:
    """Every combination of values of one kind."""
    return [Scene(kind, values) for values in product(*ATTRIBUTES[kind].values())]


def held_out_captions(count: int, seed: int = 0) -> list[Caption]:
    """`count` captions that name every attribute, of scenes kept from training; the kinds take turns."""
    rng = Random(f"held-out {seed}")
    pools = {kind: [scene for scene in all_scenes(kind) if scene.held_out] for kind in KINDS}
    return [
        draw_caption(rng.choice(pools[KINDS[i % len(KINDS)]]), rng, complete=1.0)
        for i in range(count)
    ]


def near_miss_choices(caption: Caption, count: int = 16, seed: int = 0) -> list[str]:
    """`count` sentences, the caption first, the others near misses drawn without replacement.

    Errors: ValueError if the caption names too little to have that many near misses.
    """
    misses = caption.near_misses()
    if len(misses) < count - 1:
        raise ValueError(
            f"{caption.text!r} has {len(misses)} near misses, {count - 1} are needed; name more attributes"
        )
    return [caption.text] + [
        miss.text for miss in Random(f"misses {seed} {caption.text}").sample(misses, count - 1)
    ]
