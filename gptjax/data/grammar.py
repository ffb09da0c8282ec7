"""The grammar of the synthetic plays: words, what may follow what, and with which probability."""

import math

# The names supply every capital letter, "3" and "&", as those of Tiny Shakespeare do.
SPEAKERS = (
    "KING OSWALD,QUEEN XANTHE,DUKE VALERIAN,LADY ZENOBIA,BEATRIX,FALCONER,JOYCE,GHOST,PRIOR HUGH,"
    "CITIZEN 3,LORDS & LADIES,MURDERER,NURSE,WATCHMAN"
).split(",")

# Every noun takes a plain "s" in the plural. No word stands in two categories (or in RHYMES too).
_NOUNS = """age arm axe bell bird blade bolt bond bone book bough brow bud cage coin cloak cloud
cord cub cup dagger dawn deed den drum duke earl elm eye fang fawn fen fiend fig flag flute ford
fort friend frost fruit gem ghost gift goat guest gull harp hawk hedge heir helm herb herd herald
hill horn horse host hour inn isle jest jewel jug key king kite knave knee knot lad lake lamb lamp
lance lark law limb lion lip lord lute maid mare mask mast moth monk myth neck nest nun nymph oak
oath orb owl page path pawn pearl poet pond pool prince pyre queen quill raven realm reed ring robe
rod rogue root rose sail saint scar scroll seal seed ship shoe shrine sin skull slave snake snare
son soul spur star stem stone storm sword swan thorn throne toad tomb tower tree tusk vale veil
vine viper vow wand wasp wave web wheel whip widow wing wound wreath yew yoke"""
LEXICON = {
    "interjection": "o alas nay ah lo fie hark come ay why peace hush".split(),
    "conjunction": "and but for yet when if so though since till ere lest or nor while as".split(),
    "determiner": "the my thy his her our your this that each no any one yon".split(),
    "pronoun": "I he she we they you who none few many all both".split(),
    "modal": "shall will may can must would could should might cannot".split(),
    "adverb": "ne'er never oft soon now well thus first once here there e'en ever twice".split(),
    "preposition": """in on by with at from near past under o'er 'neath before beside behind within
    upon beyond through to like""".split(),
    "noun": _NOUNS.split(),
    "plural": [noun + "s" for noun in _NOUNS.split()],
    "adjective": """aged airy apt azure bad base bitter black bleak blind blithe blue bold brave
    brief bright broad brown calm chaste clear cold coy cruel cursed dark deaf deep dim dire divine
    dry dull dumb fair faint false far fierce fine firm fond foul frail free full glad gold good
    grand grave gray great green grim guilty harsh high holy hot huge humble idle ill-starred just
    keen kind lame lean lone long loud love-sick low loyal mad meek mild moon-lit naked new noble
    numb odd old pale poor proud pure quaint quick quiet rare rash raw red rich ripe royal rude sad
    safe sea-cold sharp shy sick sly slow soft sour stern strange strong sweet swift tall tart
    tender thin true vain vast vile warm weak weary white wide wild wise young""".split(),
    "verb": """bear beat bless bind bite break bring burn buy call cast catch chase cheat chide
    choose cleave clutch crave crush curse dare deny draw drink eat fetch find fling forge gain give
    greet grip guard halt haunt heal hear help hew hold hunt hurl join keep kill kiss know lead
    leave lend lift lose make mar meet mend miss mock mourn move obey owe pass pity praise prize
    prove quell quench quit raise reap rob rule save scorn seek seize sell send serve shake shun
    sing slay smite spare spill spurn steal strike take tame teach tell test touch trust try twist
    use vex view wake want warn wed weigh win wish woo yield""".split(),
    "past": """ate bade bent bore bought broke brought built caught chose cut drew drank drove fed
    felt flung forgot forsook found gave got had heard held hid hurt kept knew laid led left lent
    lost made met paid rent rode sang saw sent shook shot shut slew smote sold sought spent spun
    stole struck stung swore taught threw told took tore trod woke won wore wove wrote wrung
    """.split(),
}
RHYMES = [
    "light night sight knight fight flight right plight".split(),
    "day clay play way fray bay sway prey".split(),
    "fear tear year spear gear ear cheer seer".split(),
    "face grace place race lace mace space embrace".split(),
    "fire desire lyre spire wire mire squire choir".split(),
    "bread bed dread head thread shed sled stead".split(),
    "pain reign rain chain grain train swain brain".split(),
    "ground sound mound hound round bound pound".split(),
    "shore door floor war core lore oar gore".split(),
    "fate state gate hate mate weight estate freight".split(),
    "heart art part cart dart chart mart smart".split(),
    "hall wall fall ball thrall gall pall squall".split(),
    "name fame shame flame game blame dame frame".split(),
    "crown gown town frown down clown renown".split(),
    "woe bow foe snow glow crow blow show".split(),
    "bride pride tide side guide ride stride hide".split(),
]

# A line of verse is a walk from "line" over slots; the last word of a slot's name is the category
# that fills it. The slots after one slot differ in category, so the word tells which was taken.
# Slots that lead nowhere here are followed by the rhyme.
_CLAUSE = {"subject determiner": 0.4, "pronoun": 0.25, "subject plural": 0.35}
_PREDICATE = {"modal": 0.3, "adverb": 0.2, "past": 0.5}
_OBJECT = {"object determiner": 0.4, "object plural": 0.3, "last adjective": 0.3}
NEXT_SLOTS = {
    "line": {"interjection": 0.1, "conjunction": 0.3}
    | {slot: 0.6 * share for slot, share in _CLAUSE.items()},
    "interjection": _CLAUSE,
    "conjunction": _CLAUSE,
    "subject determiner": {"subject adjective": 0.5, "subject noun": 0.5},
    "subject adjective": {"subject noun": 1.0},
    "subject noun": _PREDICATE,
    "subject plural": _PREDICATE,
    "pronoun": _PREDICATE,
    "modal": {"modal adverb": 0.2, "verb": 0.8},
    "modal adverb": {"verb": 1.0},
    "adverb": {"past": 1.0},
    "verb": _OBJECT,
    "past": _OBJECT,
    "object determiner": {"last adjective": 0.5, "object noun": 0.5},
    "object noun": {"preposition": 1.0},
    "object plural": {"preposition": 1.0},
    "preposition": {"last determiner": 0.5, "last adjective": 0.5},
}
# What follows a word, by slot; one space where nothing is said.
TERMINATORS = {
    "interjection": {", ": 0.6, "! ": 0.4},
    "object noun": {" ": 0.75, ", ": 0.25},
    "object plural": {" ": 0.75, ", ": 0.25},
    "first rhyme": {",\n": 0.4, "\n": 0.35, ";\n": 0.15, ":\n": 0.1},
    # A blank line ends the speech: with these shares a speech has 2.5 couplets on average.
    "second rhyme": {
        ",\n": 0.2,
        ";\n": 0.25,
        ":\n": 0.15,
        ".\n\n": 0.2,
        "!\n\n": 0.1,
        "?\n\n": 0.1,
    },
}


def zipf_shares(n: int) -> list[float]:
    """Shares of ranks 0 .. n-1, proportional to 1 / (rank + 10) and summing to 1.

    Source: Mandelbrot's form of Zipf's law. The 10 evens out the head of the lists, which brings
    the text to 0.83 nats per character; with 0 a few words would fill it.
    """
    weights = [1.0 / (rank + 10) for rank in range(n)]
    # Not sum(): since Python 3.12 it rounds differently, and a seed must give one text everywhere.
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def speaker_shares(last: str) -> dict[str, float]:
    """Probability of each next speaker; nobody follows himself. `last` is "" at the opening."""
    if not last:
        return dict(zip(SPEAKERS, zipf_shares(len(SPEAKERS)), strict=True))
    # Everyone has his own order of answerers: those listed after him, first the nearest.
    place = SPEAKERS.index(last)
    others = SPEAKERS[place + 1 :] + SPEAKERS[:place]
    return dict(zip(others, zipf_shares(len(others)), strict=True))


def word_shares(category: str, speaker: str) -> dict[str, float]:
    """Probability of each word of a category in a speaker's mouth.

    Everyone likes best another part of the list, so the name over a speech helps to predict it.
    """
    words = LEXICON[category]
    favourite = SPEAKERS.index(speaker) * len(words) // len(SPEAKERS)
    words = words[favourite:] + words[:favourite]
    return dict(zip(words, zipf_shares(len(words)), strict=True))


def rhyme_shares(first: str) -> dict[str, float]:
    """Probability of each word that may end a line.

    Args:
      first: the word that ended the couplet's first line, which the second must rhyme with and may
        not repeat; "" for the first line itself, where any word will do.
    """
    if not first:
        groups = zip(RHYMES, zipf_shares(len(RHYMES)), strict=True)
        return {
            word: group_share * share
            for group, group_share in groups
            for word, share in zip(group, zipf_shares(len(group)), strict=True)
        }
    group = next(group for group in RHYMES if first in group)
    others = [word for word in group if word != first]
    return dict(zip(others, zipf_shares(len(others)), strict=True))
