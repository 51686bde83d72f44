"""Words that name none of the concepts: the checkpoint must answer them with nothing."""

from __future__ import annotations

import numpy as np

_TRAINING = """
abacus, academy, accident, actor, adult, advice, afternoon, age, agreement, air, airport, album, alley,
almond, alphabet, altar, angle, ankle, answer, apartment, apron, aquarium, arch, arena, arm, armchair,
armor, army, arrow, artichoke, ash, asparagus, athlete, attic, audience, aunt, author, autumn, avalanche,
award, baker, balcony, bamboo, bandana, banjo, banner, barn, barrel, barricade, bartender, basement, basil,
bead, beak, beam, bean, beard, beaver, beet, beetle, belt, berry, bib, bird cage, bishop, bison, blade,
blanket, blender, blinds, blizzard, block, blueprint, board, boardwalk, boiler, bolt cutter, bonfire,
bonnet, booth, boulevard, bowtie, box office, bracelet, braid, branch, brass, breakfast, breeze, brick,
bride, bridge, bristle, brochure, bronze, brooch, broth, bubble, buckle, buffet, bulldozer, bungalow, bunk,
bureau, burger bun, bush, butcher, button, cabin, cabinet, cable, cage, calculator, campsite, canal, canopy,
canvas, canyon, cape, caravan, cardigan, cargo, carpet, cart wheel, carton, cashier, casino, cathedral,
cauliflower, cave, ceiling, celery, cello, cement, chalk, chandelier, charcoal, chef, chess, chest, chimney,
chin, choir, church bell, cinema, city, clarinet, classroom, claw, clay, cliff, clinic, cloak, closet,
cloth, clutch, coast, cobra, cobweb, collar, column, comb, comic, concert, cone, copper, cork, corner,
cottage cheese, cotton, counter, courtyard, cradle, crane, crate, crayfish, cream, creek, crowd, crumb,
cube, cupboard, curtain, cyclist, cymbal, dancer, dashboard, date, daughter, deck, dentist, desert, diaper,
dictionary, dinner, director, dish, dishwasher, ditch, diver, doctor, doll, dome, drain, drawer, dream,
drill, driver, dumpster, dune, dust, dustpan, easel, echo, eel, elbow, elevator, ember, engine, engineer,
escalator, evening, exit, eyebrow, fabric, factory worker, falcon, farm, farmer, faucet, fence, fern,
ferret, festival, fiber, field, fig, finger, fireplace, fisherman, flag, flask, flood, floor, flour, foam,
fog, folk, food, football, forehead, forest, fork lift, fort, frame, freight, friend, frost, fur, furnace,
furniture, galaxy, gallery, garage, garbage, garden, garlic bread, gas, gate, gazebo, gift card, giraffe
calf, glacier, glitter, glue, goggles, gold, golfer, grain, granite, grass, grasshopper nest, gravel, gravy,
greenhouse, groom, ground, guard, guest, gutter, gym, hail, hair, hall, ham, hammock, handle, hanger,
harbor, harness, harp, harvest, hay, hazelnut, head, heater, hedge, heel, hen house, hill, hinge, hip,
hockey, hole, holiday, hood, hoof, horizon, horn, hose, hospital, hostel, hot tub, hotel, hummus, hurricane,
hut, ice, icicle, igloo, ink, insect net, iris, iron, ivory, ivy, jam, jelly, jersey, jet ski, judge, jug,
juice, jungle, kale, kennel, kilt, king, kitchen, knee, knight, knob, lab, lace, lagoon, lake, land, lane,
lava, lawn, lawyer, lead, leather, leek, leopard cub, lever, library, lid, lighthouse, lightning rod, lily,
line, linen, lip balm, litter, liver, living room, lobby, locker, loom, lunch, machine, magazine, maid,
mall, mandolin, manor, maple syrup, marble, market, marsh, mask, mast, mat, match, mattress, mayor, meadow,
medal ceremony, menu, mesh, metal, meteor, midnight, mill, mint, mist, mitten clip, moat, model, mole,
monitor lizard, monk, monster truck, monument, morning, mosaic, mosque, motor, mud, museum, musician,
mustache, mustard, nail, napkin, neck, necklace, neighbor, nest, net, nickel, night, noodle shop, nun,
nurse, nut, oar, oat, ocean, octagon, oil, opera, orchard, orchestra, orchid, outlet, owner, paint, pajamas,
palace, pan flute, pants pocket, paper, paragraph, park, parking lot, parsley, party, passenger, passport,
paste, path, patio, paw, pebble, pedal, pedestrian, peg, pelican, pepper mill, perfume, petal, pharmacy,
picnic, picture, pier, pigeon coop, pillar, pilot, pin, pipe, pit, pitcher, plain, plank, plaster cast,
plastic, platform, player, playground, plaza, plum, plumber, pocket, podium, poem, pole, pond, pool, porch,
port, portrait, post, poster, pouch, powder, prison, prize money, puddle, pump, punch bowl, puppet, quail,
quarry, queen, quilt, rack, radar, radish, raft, rag, rail, railing, rake, ramp, ranch, raspberry, razor,
reef, restaurant, rice field, rifle, river, robe, rod, roof, room, root, rope, row, rubber, rug, runner,
runway, rust, sack, saddle, safe, sailor, salmon, salon, sand, sandals rack, sandcastle, sapphire, sauce,
saucer, sausage, scaffold, school, scientist, scoop, sea, seat, seaweed, seed, shadow, shaft, shampoo
bottle, shed, sheet, shelf, shelter, shin, shopkeeper, shore, shoulder, shovel, shutter, sidewalk, sign,
signal, silk, silver, singer, siren, skirt, sky, skyline, slab, sled, sleeve, slice, slipper, sloth, smoke,
soil, soldier, son, spade, spark, spatula, sphere, spice, spike, spinach, spiral, splash, sponge, sports,
spring, sprinkler, squash, stadium, stage, staircase, stairs, stamp, stand, staple, stapler, statue, steam,
steel, stem, step, stew, stick, stool, store, storm, strap, straw, stream, string, student, studio, sugar,
suit, summer, sunset, supper, surface, surfboard, surgeon, swamp, sweater, swimmer, swing, switch, sword,
tablet, tail, tailor, tank, tape, tapestry, tar, teacher, team, temple, terrace, theater, thigh, thorn,
throat, throne, thumb, thumbnail, tile, timber, tin, toad stool, toe, token, tongs, tool belt, torch relay,
towel, tower block, town, toy, track, trail, trailer, tray, treasure, trench, triangle ruler, tribe, tripod,
trolley bus, trout, trunk, tuba, tube, tugboat, tuna, tunnel, turban, turbine, turnip, tuxedo, twig, twin,
tyrannosaur egg, uncle, uniform, valley, valve, vanilla, vapor, vault, veil, velvet, vest, village, vine,
vinegar, vineyard, visitor, wagon, waist, waiter, walkie talkie, wall, walnut, ward, wardrobe, warehouse,
washer, wasp, waterfall, watering can, wax, web, wedding, weed, weight, well, wheat field, wheelbarrow,
whip, whisk, whistle, wig, wildlife, willow, wind, windmill, wing, winter, wire, wire fence, witch, wizard,
wood, word, worker, world, wound, wrapper, wreath, wrist, yacht club, yard, yeast, yogurt, youth, zipper,
zoo, zoo keeper
"""

_TEST = """
acrobat, air conditioner, ambassador, anvil, aqueduct, atlas, bagpipe, ballroom, barometer, bartender
apron, bassoon, bayonet, beehive box, binoculars, birdbath, bobsled, bookshelf, bottle opener, breadbox,
bunker, cactus wren, calligraphy, cauldron, chainsaw, chopping board, cinnamon, coat hanger, cockpit,
coconut milk, colander, concrete, corkscrew, coupon, crossbow, crow, cufflink, curb, dandelion, dentures,
diploma, doorbell, doormat, earring, eclipse, eyelash, fireman, fjord, flagpole, flamethrower, fudge,
gargoyle, garlic press, geyser, gondolier, grandson, grapefruit, grater, gutter ball, hairbrush,
harmonica, haystack, hinge pin, hoodie, hubcap, hyena, iceberg, inkwell, invoice, jackhammer, jaguar,
jukebox, kazoo, keyhole, kiosk, knapsack, lampshade, lasso, lawnmower, lemur, lobby desk, lounge, lullaby,
mailman, manhole, mannequin, marshmallow, meerkat, metronome, minaret, mongoose, moss, mousepad,
nutcracker, oatmeal, obelisk, omelette, ostrich, overpass, paddle, parking meter, periscope, pickle,
pinecone, pliers, plow, porcupine, propeller, pyramid, quicksand, rattle, rickshaw, rhubarb, rolling
pin, scarecrow, seagull, seesaw, shoelace, snorkel mask, spinning top, stethoscope case, stingray,
suspenders, tambourine, tangle, tarantula, termite, thimble, tofu, tombola, totem, trampoline, tripwire,
trombone, turnstile, tweezers, typewriter, ukulele, vacuum cleaner, vending machine, vulture, waistcoat,
walrus, washing machine, weasel, wetsuit, windshield, woodpecker, xylophone, yurt, zeppelin
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.replace("\n", " ").split(","))


TRAINING_WORDS = _words(_TRAINING)
TEST_WORDS = _words(_TEST)
"""Never seen in training."""


def invented_word(rng: np.random.Generator) -> str:
    """Return a word that does not exist, such as "brelunto"."""
    syllables = int(rng.integers(2, 4))
    consonants, vowels, ends = (
        "b br c ch d f fl g gr h j k l m n p pl r s sh st t tr v w z",
        "a e i o u ea oo",
        "n r s t k l m x",
    )
    word = "".join(_any(consonants, rng) + _any(vowels, rng) for _ in range(syllables))
    return word + (_any(ends, rng) if rng.random() < 0.5 else "")


def _any(text: str, rng: np.random.Generator) -> str:
    parts = text.split()
    return parts[int(rng.integers(len(parts)))]
