"""Draws the demo's images and writes them as CIFAR-10 and CIFAR-100 binary files.

Ten classes with the names of CIFAR-10 are drawn from parts ("two wings", "large antlers"), each
present with a probability of its class; many parts are shared. A shift from 0 to 1 makes pose,
colours, scale, blur and clutter harder. There is no pixel noise, which would not compress.

    python draw.py ../../pipelines/demo
"""

import argparse
import dataclasses
import pathlib
import random
from multiprocessing import Pool

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
VEHICLES = {"airplane", "automobile", "ship", "truck"}

# How likely each class shows each of its parts.
PARTS = {
    "airplane": {"two wings": .95, "tail fin": .8, "landing gear": .4, "pointed nose": .6, "row of windows": .6, "blue stripe": .3},
    "automobile": {"four wheels": .95, "four doors": .7, "row of windows": .8, "round headlights": .6, "shiny paint": .5, "blue stripe": .2},
    "bird": {"two wings": .7, "sharp beak": .9, "long tail": .5, "spotted coat": .2, "thin legs": .7, "round eyes": .7},
    "cat": {"pointed ears": .9, "long whiskers": .8, "long tail": .8, "striped fur": .5, "four legs": .8, "round eyes": .7},
    "deer": {"large antlers": .8, "spotted coat": .6, "four legs": .9, "thin legs": .6, "pointed ears": .4, "short tail": .7},
    "dog": {"floppy ears": .85, "open mouth": .6, "long tail": .5, "spotted coat": .4, "four legs": .85, "round eyes": .5},
    "frog": {"green skin": .85, "webbed feet": .8, "bulging eyes": .9, "open mouth": .4, "spotted coat": .3, "four legs": .3},
    "horse": {"long mane": .9, "four legs": .95, "long face": .8, "long tail": .7, "thin legs": .3, "pointed ears": .4},
    "ship": {"white deck": .8, "square sails": .4, "row of windows": .5, "pointed nose": .7, "tall funnel": .6, "blue stripe": .4},
    "truck": {"four wheels": .9, "rectangular cargo": .9, "round headlights": .6, "shiny paint": .2, "tall cab": .8, "blue stripe": .3},
}
ALL_PARTS = sorted({part for parts in PARTS.values() for part in parts})

COLOURS = {
    "red": (200, 40, 40), "blue": (50, 70, 200), "white": (230, 230, 230), "black": (40, 40, 40),
    "gray": (130, 130, 130), "yellow": (220, 200, 60), "brown": (130, 85, 45), "green": (60, 150, 60),
    "orange": (225, 140, 50),
}
COATS = ["brown", "black", "white", "gray", "orange"]
GROUNDS = {
    "sky": (150, 190, 235), "road": (110, 110, 115), "water": (60, 110, 160), "grass": (90, 150, 70),
    "sand": (205, 185, 140), "room": (190, 170, 160),
}
HABITATS = {
    "airplane": ["sky", "sky", "road"], "automobile": ["road", "road", "sand"], "bird": ["sky", "grass", "sand"],
    "cat": ["room", "grass", "room"], "deer": ["grass", "grass", "sand"], "dog": ["room", "grass", "grass"],
    "frog": ["grass", "water", "grass"], "horse": ["grass", "sand", "grass"], "ship": ["water", "water", "sky"],
    "truck": ["road", "road", "sand"],
}

BLACK, WHITE = (20, 20, 20), (240, 240, 240)
BLUE, LAMP, BEAK, MOUTH, ANTLER = (40, 60, 220), (255, 245, 140), (240, 160, 30), (150, 60, 50), (90, 60, 30)

SIDE = 32
DRAWN = 96  # Shapes are drawn on a square of this side and averaged down to `SIDE`.

# The shift of the committed sets, their sizes and the seeds of all sets.
SHIFT = 0.67
TRAIN, TEST, HUNDRED = 2000, 2000, 100
CLEAN_SEED, TRAIN_SEED, TEST_SEED, HUNDRED_SEED = 1, 41, 31, 51


@dataclasses.dataclass(frozen=True)
class Scene:
    """What an image shows: the index of its class, its parts, its colour and where it stands."""

    label: int
    parts: tuple
    colour: str
    ground: str


class Layer:
    """A transparent square to draw an object on."""

    def __init__(self, parts):
        self.parts = parts
        self.image = Image.new("RGBA", (DRAWN, DRAWN), (0, 0, 0, 0))
        self.pen = ImageDraw.Draw(self.image)

    def has(self, part):
        return part in self.parts

    def oval(self, x0, y0, x1, y1, fill):
        self.pen.ellipse([x0, y0, x1, y1], fill=fill + (255,))

    def box(self, x0, y0, x1, y1, fill):
        self.pen.rectangle([x0, y0, x1, y1], fill=fill + (255,))

    def shape(self, points, fill):
        self.pen.polygon(points, fill=fill + (255,))

    def line(self, x0, y0, x1, y1, fill, width=1):
        self.pen.line([x0, y0, x1, y1], fill=fill + (255,), width=width)


def airplane(on, body, dark, _light):
    on.oval(12, 42, 84, 56, body)
    if on.has("pointed nose"):
        on.shape([(80, 42), (94, 49), (80, 56)], body)
    if on.has("two wings"):
        on.shape([(42, 48), (58, 48), (40, 74), (30, 74)], dark)
        on.shape([(44, 46), (56, 46), (44, 26), (36, 26)], dark)
    if on.has("tail fin"):
        on.shape([(12, 46), (24, 44), (10, 26)], dark)
    if on.has("landing gear"):
        on.oval(34, 58, 42, 66, BLACK)
        on.oval(62, 58, 70, 66, BLACK)
    if on.has("row of windows"):
        for x in range(28, 76, 7):
            on.box(x, 45, x + 3, 48, WHITE)
    if on.has("blue stripe"):
        on.box(18, 50, 80, 53, BLUE)


def automobile(on, body, _dark, _light):
    on.box(10, 50, 86, 68, body)
    on.shape([(24, 50), (34, 34), (64, 34), (76, 50)], body)
    if on.has("row of windows"):
        on.box(36, 38, 48, 49, WHITE)
        on.box(51, 38, 62, 49, WHITE)
    if on.has("four doors"):
        for x in (30, 48, 66):
            on.line(x, 50, x, 68, BLACK)
    wheels_and_paint(on, (16, 64))


def truck(on, body, dark, light):
    if on.has("rectangular cargo"):
        on.box(8, 24, 60, 68, light)
    else:
        on.box(8, 56, 60, 68, dark)
    tall = on.has("tall cab")
    on.box(62, 30 if tall else 46, 88, 68, body)
    on.box(74, 36 if tall else 50, 86, 48 if tall else 56, WHITE)
    wheels_and_paint(on, (12, 34, 68))


def wheels_and_paint(on, wheels):
    if on.has("shiny paint"):
        on.line(14, 53, 80, 53, (255, 255, 255), 3)
    if on.has("round headlights"):
        on.oval(80, 54, 90, 64, LAMP)
    if on.has("four wheels"):
        for x in wheels:
            on.oval(x, 62, x + 16, 78, BLACK)
    if on.has("blue stripe"):
        on.box(12, 60, 82, 63, BLUE)


def ship(on, body, dark, _light):
    on.shape([(8, 56), (84, 56), (74, 76), (20, 76)], body)
    if on.has("pointed nose"):
        on.shape([(80, 56), (95, 50), (78, 72)], body)
    if on.has("white deck"):
        on.box(22, 46, 70, 56, WHITE)
    if on.has("row of windows"):
        for x in range(26, 68, 8):
            on.box(x, 49, x + 3, 53, BLACK)
    if on.has("square sails"):
        on.box(30, 14, 46, 44, WHITE)
        on.box(50, 18, 64, 44, WHITE)
        on.line(48, 12, 48, 56, BLACK, 2)
    if on.has("tall funnel"):
        on.box(52, 26, 62, 46, dark)
    if on.has("blue stripe"):
        on.box(14, 62, 80, 66, BLUE)


def bird(on, body, dark, _light):
    on.oval(26, 36, 70, 64, body)
    on.oval(60, 24, 82, 46, body)
    if on.has("sharp beak"):
        on.shape([(80, 32), (95, 36), (80, 40)], BEAK)
    if on.has("two wings"):
        on.shape([(36, 46), (60, 44), (40, 14)], dark)
    if on.has("long tail"):
        on.shape([(30, 48), (4, 40), (4, 54)], dark)
    if on.has("thin legs"):
        on.line(44, 62, 44, 84, BLACK, 2)
        on.line(54, 62, 54, 84, BLACK, 2)
    spots_and_eyes(on, 70, 33)


def frog(on, body, dark, light):
    on.oval(20, 44, 76, 76, body)
    on.oval(40, 34, 84, 60, body)
    if on.has("webbed feet"):
        on.shape([(14, 82), (34, 70), (38, 84)], light)
        on.shape([(58, 84), (68, 70), (86, 84)], light)
    if on.has("bulging eyes"):
        on.oval(48, 22, 62, 38, light)
        on.oval(66, 22, 80, 38, light)
        on.oval(52, 26, 58, 33, BLACK)
        on.oval(70, 26, 76, 33, BLACK)
    if on.has("open mouth"):
        on.oval(56, 46, 80, 56, MOUTH)
    if on.has("four legs"):
        on.box(24, 70, 32, 84, dark)
        on.box(62, 70, 70, 84, dark)
    spots_and_eyes(on, 64, 40)


def four_legged(on, body, dark, up, slim):
    """Draws a cat, dog, deer or horse: raised by `up`, with a slim neck or without."""
    on.oval(16, 40 - up, 68, 66 - up, body)
    on.oval(58, 22 - up, 84, 46 - up, body)
    if slim:
        on.shape([(54, 46 - up), (66, 22 - up), (72, 42 - up)], body)
    if on.has("four legs"):
        width = 3 if on.has("thin legs") else 6
        for x in (20, 32, 50, 60):
            on.box(x, 60 - up, x + width, 86, dark)
    else:
        on.oval(18, 56, 70, 80, body)
    if on.has("long tail"):
        on.line(18, 50 - up, 6, 72, dark, 4)
    if on.has("short tail"):
        on.oval(10, 42 - up, 20, 50 - up, WHITE)
    if on.has("pointed ears"):
        on.shape([(60, 28 - up), (64, 10 - up), (70, 24 - up)], dark)
        on.shape([(74, 24 - up), (80, 10 - up), (82, 28 - up)], dark)
    if on.has("floppy ears"):
        on.oval(54, 26 - up, 62, 48 - up, dark)
        on.oval(78, 26 - up, 86, 48 - up, dark)
    if on.has("long whiskers"):
        for k in (-2, 0, 2):
            on.line(66, 40 + k, 92, 36 + 4 * k, WHITE)
    if on.has("open mouth"):
        on.oval(70, 38 - up, 80, 48 - up, MOUTH)
    if on.has("large antlers"):
        for x in (64, 76):
            on.line(x, 22 - up, x - 4, 4, ANTLER, 3)
            on.line(x - 2, 14 - up, x + 8, 4, ANTLER, 3)
    if on.has("long mane"):
        on.shape([(50, 44 - up), (60, 18 - up), (66, 26 - up), (58, 50 - up)], BLACK)
    if on.has("long face"):
        on.oval(72, 30 - up, 95, 44 - up, body)
    if on.has("striped fur"):
        for x in (26, 36, 46, 56):
            on.line(x, 42 - up, x + 3, 64 - up, BLACK, 3)
    spots_and_eyes(on, 72, 32 - up)


def spots_and_eyes(on, x, y):
    if on.has("spotted coat"):
        for u, v in ((28, 46), (38, 52), (48, 44), (56, 52), (34, 55)):
            on.oval(u, v, u + 5, v + 5, WHITE)
    if on.has("round eyes"):
        on.oval(x, y - 3, x + 6, y + 3, WHITE)
        on.oval(x + 2, y - 1, x + 4, y + 2, BLACK)


PAINTERS = {
    "airplane": airplane, "automobile": automobile, "bird": bird, "frog": frog, "ship": ship, "truck": truck,
    "cat": lambda on, body, dark, _: four_legged(on, body, dark, 0, False),
    "dog": lambda on, body, dark, _: four_legged(on, body, dark, 0, False),
    "deer": lambda on, body, dark, _: four_legged(on, body, dark, 6, True),
    "horse": lambda on, body, dark, _: four_legged(on, body, dark, 6, True),
}


def between(easy, hard, shift):
    return easy + (hard - easy) * shift


def jitter(rgb, rng, spread):
    return tuple(int(max(0, min(255, value + rng.gauss(0, spread)))) for value in rgb)


def draw(label, rng, shift):
    """Draws one image of a class: its pixels [32, 32, 3] (u8) and the scene."""
    name = CLASSES[label]
    spread = between(12, 28, shift)
    parts = {part for part, p in PARTS[name].items() if rng.random() < p * between(1, .85, shift)}
    usual = rng.random() < between(.85, .45, shift)
    ground = rng.choice(HABITATS[name] if usual else list(GROUNDS))
    colour = rng.choice(list(COLOURS) if name in VEHICLES else COATS)
    if name == "frog":
        colour = "green" if "green skin" in parts else rng.choice(["brown", "yellow"])

    image = Image.new("RGB", (DRAWN, DRAWN), jitter(GROUNDS[ground], rng, spread))
    floor = jitter(tuple(int(value * .85) for value in GROUNDS[ground]), rng, 8)
    ImageDraw.Draw(image).rectangle([0, int(DRAWN * rng.uniform(.6, .8)), DRAWN, DRAWN], fill=floor)

    body = jitter(COLOURS[colour], rng, spread)
    dark = tuple(int(value * .6) for value in body)
    light = tuple(min(255, int(value * .6 + 100)) for value in body)
    layer = Layer(parts)
    PAINTERS[name](layer, body, dark, light)
    paste(image, layer.image, rng, shift)

    if rng.random() < .5 * shift:
        x, y = rng.randrange(DRAWN), rng.randrange(DRAWN)
        corner = [x, y, x + rng.randrange(12, 34), y + rng.randrange(12, 34)]
        ImageDraw.Draw(image).rectangle(corner, fill=jitter(GROUNDS[rng.choice(list(GROUNDS))], rng, 20))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(.5 * shift, 2.2 * shift)))
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.BOX)).astype(np.float32)
    contrast = rng.uniform(between(1, .6, shift), between(1, 1.15, shift))
    pixels = pixels * contrast + rng.uniform(-15 * shift, 25 * shift)
    pixels = np.clip(pixels + .5, 0, 255).astype(np.uint8)
    return pixels, Scene(label, tuple(sorted(parts)), colour, ground)


def paste(image, layer, rng, shift):
    """Mirrors, turns, scales and places the object on the image."""
    if rng.random() < .5:
        layer = layer.transpose(Image.FLIP_LEFT_RIGHT)
    scale = rng.uniform(between(.75, .55, shift), between(1.1, 1.0, shift))
    layer = layer.rotate(rng.gauss(0, between(6, 14, shift)), Image.BICUBIC)
    layer = layer.resize((int(DRAWN * scale),) * 2, Image.BICUBIC)
    middle, reach = (DRAWN - layer.size[0]) / 2, between(6, 12, shift)
    place = (int(middle + rng.uniform(-reach, reach)), int(middle + rng.uniform(-reach, reach)))
    image.paste(layer, place, layer)


def draw_range(start, stop, seed, shift):
    rows = [draw(i % len(CLASSES), random.Random(seed * 1_000_003 + i), shift) for i in range(start, stop)]
    return [pixels for pixels, _ in rows], [scene for _, scene in rows]


def draw_set(count, seed, shift, jobs=2):
    """Draws `count` images, the classes in turn: pixels [count, 32, 32, 3] and scenes."""
    step = 500
    with Pool(jobs) as pool:
        blocks = pool.starmap(draw_range, [(i, min(i + step, count), seed, shift) for i in range(0, count, step)])
    pixels = np.stack([image for images, _ in blocks for image in images])
    return pixels, [scene for _, scenes in blocks for scene in scenes]


# The drawn classes under names of CIFAR-100, with the coarse group of each.
HUNDRED_NAMES = {
    "airplane": ("rocket", "vehicles_2"), "automobile": ("streetcar", "vehicles_2"),
    "bird": ("butterfly", "insects"), "cat": ("tiger", "large_carnivores"),
    "deer": ("kangaroo", "large_omnivores_and_herbivores"), "dog": ("wolf", "large_carnivores"),
    "frog": ("lizard", "reptiles"), "horse": ("camel", "large_omnivores_and_herbivores"),
    "ship": ("whale", "aquatic_mammals"), "truck": ("pickup_truck", "vehicles_1"),
}
FINE = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm""".split()
COARSE = """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
vehicles_2""".split()


def planar(image):
    """One image as CIFAR stores it: all red, then all green, then all blue."""
    return image.transpose(2, 0, 1).tobytes()


def write_ten(folder, train, test):
    """Writes a CIFAR-10 binary folder: five training batches, one test batch, the class names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    pixels, scenes = train
    size = len(scenes) // 5
    batches = {f"data_batch_{k + 1}.bin": (pixels[k * size:][:size], scenes[k * size:][:size]) for k in range(5)}
    batches["test_batch.bin"] = test
    for name, (images, about) in batches.items():
        rows = (bytes([scene.label]) + planar(image) for image, scene in zip(images, about))
        (folder / name).write_bytes(b"".join(rows))


def write_hundred(folder, train, test):
    """Writes a CIFAR-100 binary folder: each row holds the coarse and the fine label."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fine_label_names.txt").write_text("\n".join(FINE) + "\n\n")
    (folder / "coarse_label_names.txt").write_text("\n".join(COARSE) + "\n\n")
    for name, (images, scenes) in (("train.bin", train), ("test.bin", test)):
        rows = []
        for image, scene in zip(images, scenes):
            fine, coarse = HUNDRED_NAMES[CLASSES[scene.label]]
            rows.append(bytes([COARSE.index(coarse), FINE.index(fine)]) + planar(image))
        (folder / name).write_bytes(b"".join(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shift", type=float, default=SHIFT)
    args = parser.parse_args()
    train, test = draw_set(TRAIN, TRAIN_SEED, args.shift), draw_set(TEST, TEST_SEED, args.shift)
    write_ten(args.out / "cifar-10-batches-bin", train, test)
    train, test = (draw_set(HUNDRED, HUNDRED_SEED + k, args.shift) for k in (0, 1))
    write_hundred(args.out / "cifar-100-binary", train, test)


if __name__ == "__main__":
    main()
