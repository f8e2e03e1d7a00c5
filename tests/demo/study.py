"""The words of the study: its prompts to the LLM, its prompts to CLIP, and attributes per class."""

import draw

ENDING = (
    "Each attribute should be a single word or a very short phrase (max 3 words). Provide the answer in strict JSON "
    "format with keys {keys}, where the values are actual descriptions (for example, \"brown\", \"round\", or "
    "\"metallic\"). Do not include any additional text."
)
KEYS = {3: '"feature1", "feature2", and "feature3"', 10: '"feature1" to "feature10"'}
COUNTS = {3: "three", 10: "ten"}


def excluding(chosen, joined=None):
    """The clause that names what is already chosen; empty for nothing."""
    if not chosen:
        return ""
    names = " and ".join(f"'{word}'" for word in chosen) if joined is None else joined
    return f" other than {names}, which " + ("is" if len(chosen) == 1 else "are") + " already chosen"


def ask_attributes(name, count=3, chosen=(), joined=None):
    """Prompts (a) and (b): attributes of a class, without those already chosen."""
    head = f"Please generate {COUNTS[count]} visual attributes that are easy to see in an image of a {name}"
    return f"{head}{excluding(chosen, joined)}. {ENDING.format(keys=KEYS[count])}"


def ask_random(count=3, chosen=(), joined=None):
    """Prompts (c) and (d): random words, without those already chosen."""
    head = f"Please generate {COUNTS[count]} random words describing an object"
    return f"{head}{excluding(chosen, joined)}. {ENDING.format(keys=KEYS[count])}"


def photo(name, attributes=(), start="a photo of a "):
    """A prompt for CLIP: the class, because of its attributes."""
    return start + name + (" because of " + " and ".join(attributes) if attributes else "")


# Names of an attribute where a value was asked for, as LLMs write them.
NAME_LIKE = {
    "airplane": ["wing shape", "metal_body", "pressurized cabin", "long fuselage", "engine_count", "tail_shape"],
    "automobile": ["paint color", "sporty design", "metallic", "body_style", "wheel size", "grille_shape"],
    "bird": ["feather color", "beak_shape", "small size", "wing_span", "plumage pattern", "feather_color"],
    "cat": ["fur_color", "soft fur", "whiskers_length", "ear_shape", "eye color", "tail_length"],
    "deer": ["coat_color", "brown", "graceful", "antler_shape", "fur color", "leg_length"],
    "dog": ["fur_color", "tail_curl", "friendly face", "ear_shape", "wet nose", "coat_texture"],
    "frog": ["skin_texture", "wet", "small size", "skin_color", "smooth skin", "leg_length"],
    "horse": ["coat_color", "mane_length", "strong", "tail_length", "muscular build", "body_shape"],
    "ship": ["hull shape", "large size", "anchor", "deck_size", "hull_color", "sail shape"],
    "truck": ["headlight shape", "paint color", "heavy", "cargo_size", "cab_shape", "wheel_size"],
}
# Attributes of other classes that are sometimes said of this one.
FALSE = {
    "airplane": ["square sails", "sharp beak", "four doors"], "automobile": ["tall cab", "rectangular cargo", "landing gear"],
    "bird": ["tail fin", "webbed feet", "long whiskers"], "cat": ["floppy ears", "long mane", "short tail"],
    "deer": ["long mane", "long face", "striped fur"], "dog": ["pointed ears", "long whiskers", "short tail"],
    "frog": ["sharp beak", "short tail", "two wings"], "horse": ["large antlers", "floppy ears", "spotted coat"],
    "ship": ["two wings", "tail fin", "four wheels"], "truck": ["four doors", "row of windows", "landing gear"],
}
MODIFIERS = ["large", "small", "long", "short", "bright", "dark", "curved", "flat", "narrow", "shiny"]
RANDOM_WORDS = [
    "purple", "wooden", "fuzzy", "glass", "tiny", "shiny", "round", "metallic", "plastic", "soft", "ancient", "striped",
    "hollow", "blue", "smooth", "sturdy", "bright yellow", "heavy", "thin", "oval", "rough texture", "sharp edges",
    "curved", "transparent", "rusty", "velvet", "square", "pink", "fragile", "warm", "green", "leather", "narrow",
    "polished", "spiral", "dusty", "golden", "flexible", "cold", "patterned",
] + draw.ALL_PARTS
APPLE = {
    **dict.fromkeys(["red", "spherical", "glossy", "green", "round", "smooth skin"], 6),
    **dict.fromkeys(["oval shape", "small stem", "brown spots", "shiny", "yellow patches", "waxy skin", "leafy top",
                     "firm", "juicy", "red stripes", "short stem", "speckled skin", "crisp", "pale flesh"], 2),
}

# Attributes shared by the classes of each coarse group of CIFAR-100, with the group's members.
GROUPS = {
    "aquatic_mammals": ("beaver dolphin otter seal", "smooth skin, gray body, webbed feet, flat tail, wet fur, dorsal fin, streamlined body, flippers, round head, dark eyes, whiskers, thick blubber"),
    "fish": ("aquarium_fish flatfish ray shark trout", "silver scales, dorsal fin, forked tail, gills, sharp teeth, flat body, bright orange, shiny scales, pointed snout, long tail, round eyes, spotted skin"),
    "flowers": ("orchid poppy rose sunflower tulip", "red petals, green stem, yellow center, thin leaves, purple petals, layered petals, round shape, thorny stem, bright yellow, cup shape, soft petals, dark center"),
    "food_containers": ("bottle bowl can cup plate", "round rim, curved handle, glass body, shiny metal, flat base, narrow neck, colorful label, white ceramic, hollow inside, smooth surface, cylindrical shape, silver lid"),
    "fruit_and_vegetables": ("mushroom orange pear sweet_pepper", "round shape, green stem, smooth skin, bright orange, glossy surface, dimpled skin, brown cap, curved shape, white stalk, waxy skin, small leaf, red color"),
    "household_electrical_devices": ("clock keyboard lamp telephone television", "black keys, round face, flat screen, glowing light, long cord, plastic body, square shape, small buttons, thin hands, white numbers, curved handset, metal stand"),
    "household_furniture": ("bed chair couch table wardrobe", "four legs, wooden frame, soft cushions, flat top, tall back, brown leather, large doors, white pillows, padded seat, armrests, metal handles, patterned fabric"),
    "insects": ("bee beetle caterpillar cockroach", "six legs, two wings, striped body, long antennae, shiny shell, black eyes, brown body, yellow stripes, hard shell, thin legs, transparent wings, small body"),
    "large_carnivores": ("bear leopard lion", "sharp teeth, thick fur, long tail, striped fur, golden mane, spotted coat, round ears, large paws, gray coat, pointed ears, brown fur, sharp claws"),
    "large_man-made_outdoor_things": ("bridge castle house road skyscraper", "stone walls, glass windows, tall towers, steel cables, gray asphalt, red roof, white lines, wooden door, many windows, arched spans, flat roof, brick walls"),
    "large_natural_outdoor_scenes": ("cloud forest mountain plain sea", "blue water, white foam, green trees, snowy peak, rocky slope, fluffy white, flat horizon, tall grass, gray sky, waves, dark shadows, open space"),
    "large_omnivores_and_herbivores": ("cattle chimpanzee elephant", "long trunk, gray skin, large ears, curved horns, four legs, brown fur, long neck, humped back, strong legs, long tail, black hair, white tusks"),
    "medium_mammals": ("fox porcupine possum raccoon skunk", "bushy tail, black mask, sharp quills, orange fur, white stripe, pointed snout, striped tail, gray fur, small ears, black fur, long whiskers, pink nose"),
    "non-insect_invertebrates": ("crab lobster snail spider worm", "eight legs, spiral shell, large claws, soft body, red shell, long antennae, segmented body, hairy legs, slimy skin, hard shell, pink body, small eyes"),
    "people": ("baby boy girl man woman", "short hair, smiling face, long hair, blue eyes, chubby cheeks, brown hair, small nose, colorful dress, white shirt, beard, round face, two arms"),
    "reptiles": ("crocodile dinosaur snake turtle", "green scales, long tail, sharp teeth, hard shell, rough skin, short legs, forked tongue, patterned skin, long body, claws, yellow eyes, wide jaw"),
    "small_mammals": ("hamster mouse rabbit shrew squirrel", "long ears, bushy tail, soft fur, pink nose, small paws, round eyes, thin tail, brown fur, white belly, whiskers, chubby cheeks, pointed snout"),
    "trees": ("maple_tree oak_tree palm_tree pine_tree willow_tree", "green leaves, brown trunk, tall trunk, red leaves, needle leaves, wide canopy, drooping branches, rough bark, long fronds, cone shape, thick branches, deep roots"),
    "vehicles_1": ("bicycle bus motorcycle train", "two wheels, metal frame, large windows, handlebars, four wheels, steel rails, round headlights, black tires, open bed, yellow paint, long body, chrome exhaust"),
    "vehicles_2": ("lawn_mower tank tractor", "large wheels, metal tracks, long barrel, pointed nose, engine flames, green paint, red body, overhead wires, sharp blades, tall cab, long handle, steel armor"),
}


def pool_of_drawn(name):
    """Weighted attributes of a drawn class: its own parts first, then shared, false and name-like ones."""
    parts = draw.PARTS[name]
    pool = {f"{word} {part.split()[-1]}": 1.0 for part in parts for word in MODIFIERS}
    pool |= dict.fromkeys(FALSE[name], 1.5)
    pool |= dict.fromkeys(NAME_LIKE[name], 1.5)
    return pool | {part: 4 + 4 * chance for part, chance in parts.items()}


def pools():
    """Attributes with weights of every class the LLM knows."""
    result = {name: pool_of_drawn(name) for name in draw.CLASSES}
    result |= {fine: result[name] for name, (fine, _) in draw.HUNDRED_NAMES.items()}
    for members, words in GROUPS.values():
        words = [word.strip() for word in words.split(",")]
        for k, member in enumerate(members.split()):
            # Each member prefers other words of its group.
            pool = {word: 4.0 if (i + k) % 3 == 0 else 2.0 for i, word in enumerate(words)}
            nouns = dict.fromkeys(word.split()[-1] for word in words)
            for word in (f"{m} {noun}" for noun in nouns for m in MODIFIERS[k % 5::5]):
                pool.setdefault(word, .7)
            result[member] = pool
    result["apple"] = APPLE
    return result


def all_words():
    """Every class name and attribute that the pools can say."""
    known = pools()
    return sorted({*known, *draw.FINE, *RANDOM_WORDS, *(word for pool in known.values() for word in pool)})


assert set(pools()) == {*draw.CLASSES, *draw.FINE}, "a class of CIFAR-100 is missing or misspelt"
assert all(len(pool_of_drawn(name)) >= 60 for name in draw.CLASSES)
