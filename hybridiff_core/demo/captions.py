"""What the small trained model knows how to draw, and what to say of a caption that it does not know."""

from __future__ import annotations

import difflib

from .text import TOKENS, words

# those that came out well with several seeds
SUGGESTED = (
    "red heart", "strawberry", "mushroom", "rainbow", "rocket", "watermelon", "avocado", "snowflake", "cactus", "fox",
    "frog", "red apple", "lemon", "guitar", "sunflower", "maple leaf", "pink guitar", "blue frog", "purple butterfly",
)  # fmt: skip
# in another colour: each colour and thing was learnt, most of them together
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
COLOURED = (
    "cat", "fox", "frog", "butterfly", "crab", "fish", "rose", "maple leaf", "mushroom", "strawberry", "pear", "guitar",
    "umbrella", "crescent moon",
)  # fmt: skip
# Unicode's names of the emoji that it was trained on (training/data.py: read_names, of those that the font has)
TEXT = """
grinning face; grinning face with smiling eyes; grinning face with sweat; slightly smiling face; upside-down face;
melting face; winking face; smiling face with smiling eyes; smiling face with halo; cowboy hat face; partying face;
disguised face; smiling face with sunglasses; nerd face; face with monocle; pile of poo; clown face; ogre; goblin;
ghost; alien; alien monster; robot; love letter; heart with arrow; heart with ribbon; sparkling heart; growing heart;
two hearts; broken heart; red heart; pink heart; orange heart; yellow heart; green heart; blue heart;
light blue heart; purple heart; brown heart; black heart; grey heart; white heart; monkey face; monkey; gorilla;
orangutan; dog face; dog; wolf; fox; raccoon; cat face; cat; lion; tiger face; tiger; leopard; horse face; moose;
donkey; horse; unicorn; zebra; deer; bison; cow face; ox; cow; pig face; pig; pig nose; ram; goat; camel; llama;
giraffe; elephant; rhinoceros; hippopotamus; mouse face; mouse; rat; hamster; rabbit face; rabbit; chipmunk; beaver;
hedgehog; bat; bear; koala; panda; sloth; otter; skunk; kangaroo; badger; paw prints; turkey; chicken; rooster;
baby chick; bird; penguin; dove; eagle; duck; swan; owl; feather; flamingo; peacock; parrot; wing; goose; frog;
crocodile; turtle; lizard; snake; dragon face; dragon; sauropod; t-rex; spouting whale; whale; dolphin; seal; fish;
tropical fish; blowfish; shark; octopus; spiral shell; coral; jellyfish; snail; butterfly; bug; ant; honeybee; beetle;
lady beetle; spider; scorpion; fly; microbe; bouquet; cherry blossom; white flower; lotus; rosette; rose;
wilted flower; hibiscus; sunflower; blossom; tulip; hyacinth; seedling; potted plant; evergreen tree; deciduous tree;
palm tree; cactus; sheaf of rice; herb; shamrock; four leaf clover; maple leaf; fallen leaf; leaf fluttering in wind;
mushroom; grapes; melon; watermelon; tangerine; lemon; banana; pineapple; mango; red apple; green apple; pear; peach;
cherries; strawberry; blueberries; kiwi fruit; tomato; olive; coconut; avocado; eggplant; potato; carrot; ear of corn;
hot pepper; bell pepper; cucumber; leafy green; broccoli; garlic; onion; peanuts; beans; chestnut; ginger root;
pea pod; bread; croissant; baguette bread; pretzel; bagel; pancakes; waffle; cheese wedge; meat on bone; poultry leg;
cut of meat; bacon; hamburger; french fries; pizza; hot dog; sandwich; taco; egg; cooking; bowl with spoon;
green salad; popcorn; butter; salt; crab; lobster; shrimp; squid; soft ice cream; shaved ice; ice cream; doughnut;
cookie; birthday cake; shortcake; cupcake; pie; chocolate bar; candy; lollipop; custard; honey pot; baby bottle;
glass of milk; hot beverage; teapot; sake; bottle with popping cork; wine glass; cocktail glass; tropical drink;
beer mug; cup with straw; bubble tea; beverage box; mate; ice; anchor; ring buoy; sailboat; canoe; speedboat;
airplane; parachute; helicopter; satellite; rocket; flying saucer; full moon; crescent moon; thermometer; sun;
sun with face; ringed planet; star; glowing star; cloud; tornado; fog; wind face; cyclone; rainbow; closed umbrella;
umbrella; high voltage; snowflake; snowman; comet; fire; droplet; water wave; saxophone; accordion; guitar; trumpet;
violin; banjo; drum; long drum; maracas; flute; red circle; orange circle; yellow circle; green circle; blue circle;
purple circle; brown circle; black circle; white circle; red square; orange square; yellow square; green square;
blue square; purple square; brown square; large orange diamond; large blue diamond; red triangle pointed up;
red triangle pointed down
"""
NAMES = [name.strip() for name in TEXT.replace("\n", " ").split(";")]
CAPTIONS = NAMES + [f"{colour} {thing}" for thing in COLOURED for colour in COLOURS]


def remark(caption: str) -> str | None:
    """What a user should know of `caption` before it is drawn; None where the model was trained on it.

    Raises ValueError where there is no word in it that the model can read.
    """
    read = words(caption)
    if not read:
        raise ValueError(
            f"{caption!r} has no word that the model can read; write what it shows in English, such as 'red heart'"
        )
    if read in map(words, CAPTIONS):
        return None
    vocabulary = {word for known in CAPTIONS for word in words(known)}
    strange = [word for word in dict.fromkeys(read[:TOKENS]) if word not in vocabulary]
    if len(read) > TOKENS:
        said = f"Of these words the model reads the first {TOKENS} only, and it was not trained on them"
    elif strange:
        said = f"The model does not know {', '.join(map(repr, strange))}"
    else:
        said = "The model knows these words, but not together"
    near = difflib.get_close_matches(" ".join(read), CAPTIONS, n=3)
    others = ", ".join(near or SUGGESTED[:5])
    return f"{said}: what it draws is a guess. It knows: {others} (--captions lists all)."
