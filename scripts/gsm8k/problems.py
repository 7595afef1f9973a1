#!/usr/bin/env python3
"""Word problems in the manner of GSM8K, in a vocabulary of 288 tokens; every problem is a function of its seed.

    python3 scripts/gsm8k/problems.py            writes data/gsm8k/problems.jsonl and data/gsm8k/vocab.json
    python3 scripts/gsm8k/problems.py --check    compares those files with what would be written; exit 1 if they differ
    python3 scripts/gsm8k/problems.py --show 3   prints three problems of each family

Needs Python 3.8 and nothing else. Of random.Random only random() is used: its sequence is the same in every version.

A problem is held out from training by its pair of first name and item: one pair in eight is never trained on.
"""
import argparse
import json
import pathlib
import random
import re
import sys

VOCABULARY = 288
SPECIALS = ["<pad>", "<bos>", "<sep>", "<eos>"]
PAD, BOS, SEP, EOS = range(4)
MARKS = ["<<", ">>", "=", "+", "-", "*", "/", "####", ".", ",", "?"]
NAMES = ("adam albert alice amy anna arthur ben bella carl clara dan dora edgar ella emma eric eva felix finn fred gina "
         "greta hana harry hugo ida iris ivan jack jane karl kate kevin laura leo lily lucy luke maria mark mary milo nina "
         "noah nora olga oscar otto paul peter rosa ruth sam sara simon tara theo tina tom vera").split()
ITEMS = ("apples balls beads bells books bottles bowls buttons cakes candles cards coins cookies crayons cups dolls drums "
         "eggs flags forks hats kites keys lamps leaves lemons maps marbles masks muffins nuts oranges pears pencils pens "
         "photos plates plums poems posters puzzles ribbons rings robots rocks scarves shells socks spoons stamps stickers "
         "stones tickets towels toys trays").split()
PLANTS = "tomatoes beans roses tulips peppers pumpkins carrots melons".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
BAGS = "bags baskets boxes jars packs".split()
JOBS = "farm shop cafe bakery library".split()
WORDS = ("a all altogether an and animals are as at be buys change cost costs day days die does dollars do each earns "
         "equally every fewer finds for from garden gets give gives half has have hour hours house how in into is it left "
         "likes loose loses makes many money more much must needs next now of old older on one out pages pay pays picks "
         "plant plants puts reads rest row rows sells so spends story than the them then there they times to total twice two "
         "water week what will with works years younger").split()


def build_vocabulary():
    words = SPECIALS + list("0123456789") + MARKS + NAMES + ITEMS + PLANTS + DAYS + BAGS + JOBS
    words += [w for w in WORDS if w not in set(words)]
    assert len(words) == len(set(words)) and len(words) <= VOCABULARY, len(words)
    return words + [f"<unused{i}>" for i in range(VOCABULARY - len(words))]


TOKENS = build_vocabulary()
IDS = {token: i for i, token in enumerate(TOKENS)}
PATTERN = re.compile(r"<<|>>|####|<[a-z]+>|[a-z]+|[0-9]|[-=+*/.,?]")


def encode(text):
    """Lower case; words, single digits and marks are tokens; white space is nothing."""
    return [IDS[t] for t in PATTERN.findall(text.lower())]


def words_to_ids(text):
    """encode for text whose tokens stand apart, numbers excepted: four times as fast."""
    out = []
    for word in text.split():
        if word.isdigit():
            out += [IDS[d] for d in word]
        else:
            out.append(IDS[word])
    return out


def answer_of(ids):
    """The number behind the last '####', as text; None if there is none."""
    words = [TOKENS[i] for i in ids]
    if "####" not in words:
        return None
    digits = ""
    for word in words[len(words) - words[::-1].index("####"):]:
        if not word.isdigit():
            break
        digits += word
    return digits or None


def pretty(text):
    """As a reader likes it: 'tom has << 3 * 4 = 12 >> 12 pens .' becomes 'Tom has <<3*4=12>>12 pens.'"""
    text = re.sub(r"<< (.*?) >> ", lambda m: "<<" + m[1].replace(" ", "") + ">>", text)
    text = re.sub(r" ([.,?])", r"\1", text)
    text = re.sub(r"\b(" + "|".join(NAMES + DAYS) + r")\b", lambda m: m[1].capitalize(), text)
    return re.sub(r"(^|[.?] )([a-z])", lambda m: m[1] + m[2].upper(), text)


class Random:
    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, n):
        return int(self.random() * n)

    def between(self, lo, hi):
        """lo..hi, both ends included"""
        return lo + int(self.random() * (hi - lo + 1))

    def of(self, options):
        return options[int(self.random() * len(options))]

    def chance(self, p):
        return self.random() < p

    def shuffle(self, values):
        for i in range(len(values) - 1, 0, -1):
            j = self.below(i + 1)
            values[i], values[j] = values[j], values[i]


class Retry(Exception):
    """A number left its range: the problem is drawn again."""


class Problem:
    """A question in the making. Text is lower case, with a space between tokens; numbers are whole."""

    def __init__(self, r, held_out):
        self.r, self.facts, self.lines, self.question, self.steps = r, [], [], "", 0
        while True:
            names = []
            while len(names) < 6:
                name = r.of(NAMES)
                if name not in names:
                    names.append(name)
            self.names, self.item = names, r.of(ITEMS)
            if is_held_out(names[0], self.item) == held_out:
                break

    def say(self, text):
        self.facts.append(text + " .")

    def step(self, before, a, sign, b, after, most=999):
        """A line of the solution; returns the result, which has to be in 1..most."""
        c = {"+": a + b, "-": a - b, "*": a * b, "/": a // max(b, 1)}[sign]
        if not 1 <= c <= most or (sign == "/" and b * c != a):
            raise Retry
        self.lines.append(f"{before} << {a} {sign} {b} = {c} >> {c} {after} .")
        self.steps += 1
        self.result = c
        return c

    def other_item(self):
        while True:
            item = self.r.of(ITEMS)
            if item != self.item:
                return item

    def distract(self):
        """A sentence that is of no use, somewhere behind the first."""
        r, name = self.r, self.names[5]
        text = r.of([
            f"{name} has {r.between(2, 60)} {self.other_item()} .",
            f"{name} likes {self.other_item()} .",
            f"the house of {name} is {r.between(3, 90)} years old .",
            f"{name} has {r.between(2, 9)} animals .",
            f"it is {r.of(DAYS)} .",
        ])
        self.facts.insert(r.between(1, len(self.facts)), text)


def is_held_out(name, item):
    return (NAMES.index(name) * 5 + ITEMS.index(item) * 3) % 8 == 0


MULTIPLES = {2: "twice", 3: "3 times", 4: "4 times", 5: "5 times"}


def relation(p, who, whom, value, item):
    """Says how many `who` has, from what `whom` has; returns a function that writes the step."""
    r = p.r
    kind = r.of("mmfft2h")
    if kind == "m":
        b = r.between(2, 60)
        p.say(f"{who} has {b} more {item} than {whom}")
        return lambda v: p.step(f"{who} has", v, "+", b, item)
    if kind == "f" and value > 3:
        b = r.between(1, min(value - 1, 60))
        p.say(f"{who} has {b} fewer {item} than {whom}")
        return lambda v: p.step(f"{who} has", v, "-", b, item)
    if kind == "h" and value % 2 == 0:
        p.say(f"{who} has half as many {item} as {whom}")
        return lambda v: p.step(f"{who} has", v, "/", 2, item)
    k = 2 if kind == "2" else r.between(3, 5)
    p.say(f"{who} has {MULTIPLES[k]} as many {item} as {whom}")
    return lambda v: p.step(f"{who} has", v, "*", k, item)


def compare(p):
    """Each person's number from the person's before."""
    r, n, item = p.r, p.names, p.item
    v = r.between(4, 60)
    p.say(f"{n[0]} has {v} {item}")
    people = r.between(3, 4)
    values = [v]
    for i in range(1, people):
        values.append(relation(p, n[i], n[i - 1], values[-1], item)(values[-1]))
    if people == 3 and r.chance(0.4):
        p.question = f"how many {item} do they have altogether ?"
        two = p.step("two of them have", values[0], "+", values[1], item)
        p.step("they have", two, "+", values[2], item)
    else:
        p.question = f"how many {item} does {n[people - 1]} have ?"


def events(p):
    """One person's number over time."""
    r, n, item = p.r, p.names, p.item
    v = r.between(10, 90)
    p.say(f"{n[0]} has {v} {item}")
    start = r.below(7)
    for i in range(r.between(2, 4)):
        day = r.of([f"on {DAYS[(start + i) % 7]}", "then"])
        kind = r.of("ppggbh")
        if kind == "p":
            b = r.between(2, 80)
            p.say(f"{day} {n[0]} {r.of(['finds', 'buys', 'gets', 'makes'])} {b} more {item}")
            v = p.step("now there are", v, "+", b, item)
        elif kind == "b":
            k, m = r.between(2, 9), r.between(2, 12)
            p.say(f"{day} {n[0]} buys {k} {r.of(BAGS)} of {m} {item} each")
            m = p.step(f"{n[0]} buys", k, "*", m, item)
            v = p.step("now there are", v, "+", m, item)
        elif kind == "h" and v % 2 == 0:
            p.say(f"{day} {n[0]} gives half of the {item} to {n[1]}")
            v = p.step("now there are", v, "/", 2, item)
        else:
            b = r.between(1, min(v - 1, 70)) if v > 1 else 1
            p.say(f"{day} {n[0]} {r.of(['loses ' + str(b) + ' ' + item, f'gives {b} {item} to {n[1]}', f'sells {b} {item}'])}")
            v = p.step("now there are", v, "-", b, item)
    p.question = f"how many {item} does {n[0]} have now ?"


def shopping(p):
    r, n, item, other = p.r, p.names, p.item, p.other_item()
    k, a, m, b = r.between(2, 9), r.between(2, 25), r.between(2, 9), r.between(2, 25)
    p.say(f"{n[0]} buys {k} {item} for {a} dollars each and {m} {other} for {b} dollars each")
    first = p.step(f"the {item} cost", k, "*", a, "dollars")
    second = p.step(f"the {other} cost", m, "*", b, "dollars")
    total = p.step("all costs", first, "+", second, "dollars")
    if r.chance(0.6):
        paid = total + r.between(1, 90)
        p.say(f"{n[0]} pays with {paid} dollars")
        p.question = "what is the change ?"
        p.step("the change is", paid, "-", total, "dollars")
    else:
        p.question = f"how much does {n[0]} pay ?"


def earning(p):
    r, n = p.r, p.names
    wage, hours, days = r.between(3, 9), r.between(2, 9), r.between(2, 9)
    p.say(f"{n[0]} works at a {r.of(JOBS)} and earns {wage} dollars an hour")
    p.say(f"{n[0]} works {hours} hours a day for {days} days")
    worked = p.step(f"{n[0]} works", hours, "*", days, "hours")
    money = p.step(f"{n[0]} earns", worked, "*", wage, "dollars")
    if r.chance(0.6):
        spent = r.between(1, min(money - 1, 99))
        p.say(f"{n[0]} spends {spent} dollars on {p.item}")
        if r.chance(0.5):
            money = p.step("the rest is", money, "-", spent, "dollars")
            more = r.between(5, 99)
            p.say(f"then {n[0]} gets {more} dollars from {n[1]}")
            p.step(f"now {n[0]} has", money, "+", more, "dollars")
        else:
            p.step(f"now {n[0]} has", money, "-", spent, "dollars")
        p.question = f"how much money does {n[0]} have now ?"
    else:
        p.question = f"how much money does {n[0]} have then ?"


def packing(p):
    r, n, item = p.r, p.names, p.item
    boxes, each, bags = r.between(2, 9), r.between(3, 20), r.between(2, 9)
    total = boxes * each
    loose = bags - total % bags + bags * r.below(4)
    p.say(f"{n[0]} has {boxes} {r.of(BAGS)} of {each} {item} each")
    all_ = p.step(f"{n[0]} has", boxes, "*", each, item)
    if r.chance(0.7):
        p.say(f"{n[0]} finds {loose} loose {item}")
        all_ = p.step(f"now {n[0]} has", all_, "+", loose, item)
    else:
        lost = total % bags or bags
        p.say(f"{n[0]} loses {lost} {item}")
        all_ = p.step(f"now {n[0]} has", all_, "-", lost, item)
    p.say(f"{n[0]} puts all of them equally into {bags} {r.of(BAGS)}")
    q = p.step("each gets", all_, "/", bags, item)
    if r.chance(0.4) and q > 2:
        b = r.between(1, q - 1)
        p.say(f"{n[1]} picks {b} {item} out of one of them")
        p.step("there are", q, "-", b, item + " left")
        p.question = f"how many {item} are left in it ?"
    else:
        p.question = f"how many {item} are in each ?"


def reading(p):
    r, n = p.r, p.names
    rate, days, extra = r.between(3, 60), r.between(2, 9), r.between(2, 80)
    p.facts.append("")
    read = p.step(f"{n[0]} reads", rate, "*", days, "pages")
    p.say(f"{n[0]} reads {rate} pages a day for {days} days")
    if r.chance(0.6):
        p.say(f"on {r.of(DAYS)} {n[0]} reads {extra} pages more")
        read = p.step(f"so {n[0]} reads", read, "+", extra, "pages in total")
    pages = read + r.between(4, 200)
    p.facts[0] = f"a story of the {p.item} has {pages} pages ."
    left = p.step("there are", pages, "-", read, "pages left")
    if r.chance(0.35) and left % 2 == 0:
        p.say(f"the next day {n[0]} reads half of the rest")
        p.step(f"{n[0]} reads", left, "/", 2, "pages")
        p.question = f"how many pages does {n[0]} have left ?"
    else:
        p.question = f"how many pages are left ?"


def age_relation(p, who, whom, value):
    r = p.r
    kind = r.of("ooyt")
    if kind == "o":
        b = r.between(1, 30)
        p.say(f"{who} is {b} years older than {whom}")
        return lambda v: p.step(f"{who} is", v, "+", b, "years old")
    if kind == "y" and value > 4:
        b = r.between(1, min(value - 2, 30))
        p.say(f"{who} is {b} years younger than {whom}")
        return lambda v: p.step(f"{who} is", v, "-", b, "years old")
    if value > 40:
        raise Retry
    k = r.between(2, 3)
    p.say(f"{who} is {MULTIPLES[k]} as old as {whom}")
    return lambda v: p.step(f"{who} is", v, "*", k, "years old")


def ages(p):
    r, n = p.r, p.names
    v = r.between(3, 40)
    p.say(f"{n[0]} has many {p.item} and is {v} years old")
    people = r.between(3, 4)
    for i in range(1, people):
        v = age_relation(p, n[i], n[i - 1], v)(v)
    later = r.between(2, 30)
    if r.chance(0.5):
        p.question = f"how old will {n[people - 1]} be in {later} years ?"
        p.step(f"{n[people - 1]} will be", v, "+", later, "years old")
    else:
        p.question = f"how old is {n[people - 1]} ?"


def garden(p):
    r, n, plant = p.r, p.names, p.r.of(PLANTS)
    rows, each = r.between(2, 9), r.between(3, 25)
    p.say(f"{n[0]} sells {p.item} and has a garden with {rows} rows of {each} {plant}")
    v = p.step("there are", rows, "*", each, plant)
    if r.chance(0.6):
        b = r.between(1, min(v - 1, 40))
        p.say(f"{b} of the {plant} die")
        v = p.step("then there are", v, "-", b, plant)
    if r.chance(0.5):
        b = r.between(2, 60)
        p.say(f"{n[1]} plants {b} {plant} more")
        v = p.step("now there are", v, "+", b, plant)
    k = r.between(2, 9)
    p.say(f"every plant needs {k} cups of water a week")
    p.step("they must have", v, "*", k, "cups")
    p.question = f"how many cups of water must {n[0]} give a week ?"


def chain(p):
    """As compare, but each person's number from that of anyone before: the value is looked up by name."""
    r, n, item = p.r, p.names, p.item
    values = [r.between(4, 60)]
    p.say(f"{n[0]} has {values[0]} {item}")
    people = r.between(3, 4)
    for i in range(1, people):
        j = r.below(i)
        values.append(relation(p, n[i], n[j], values[j], item)(values[j]))
    p.question = f"how many {item} does {n[people - 1]} have ?"


def shuffled(p):
    """As ages, with the sentences in any order."""
    r, n = p.r, p.names
    v = r.between(3, 40)
    p.say(f"{n[0]} has many {p.item} and is {v} years old")
    people = r.between(3, 4)
    for i in range(1, people):
        v = age_relation(p, n[i], n[i - 1], v)(v)
    r.shuffle(p.facts)
    later = r.between(2, 30)
    p.question = f"how old will {n[people - 1]} be in {later} years ?"
    p.step(f"{n[people - 1]} will be", v, "+", later, "years old")


def pair(p):
    """Two of three people, whose numbers are looked up by name."""
    r, n, item = p.r, p.names, p.item
    values = [r.between(4, 60), r.between(4, 60)]
    p.say(f"{n[0]} has {values[0]} {item}")
    p.say(f"{n[1]} has {values[1]} {item}")
    values.append(relation(p, n[2], n[1], values[1], item)(values[1]))
    i, j = r.of([(0, 1), (0, 2), (1, 2)])
    p.question = f"how many {item} do {n[i]} and {n[j]} have altogether ?"
    p.step("two of them have", values[i], "+", values[j], item)


def product(p):
    """A product of numbers with two digits, in one step."""
    r, n, item = p.r, p.names, p.item
    a, b, rows = r.between(5, 39), r.between(5, 40), r.between(11, 59)
    p.say(f"{n[0]} puts {a} {item} in a row and {n[1]} puts {b} {item} more in the row")
    each = p.step("each row has", a, "+", b, item)
    p.say(f"they have {rows} rows")
    p.question = f"how many {item} do they have altogether ?"
    p.step("they have", rows, "*", each, item, 9999)


EASY = [compare, events, shopping, earning, packing, reading, ages, garden]
HARD = [chain, shuffled, pair, product]
FAMILIES = {f.__name__: f for f in EASY + HARD}
TRAINING_SHARE_OF_HARD = 0.3
HELD_OUT_PROBLEMS = 400
HELD_OUT_HARD = {"chain": 12, "shuffled": 12, "pair": 12, "product": 12}
OFFSETS = (0, 3000)


def make(seed, family, held_out):
    """(question, solution, answer, steps) of the problem with this seed; texts with spaces between tokens."""
    r = Random(seed)
    while True:
        p = Problem(r, held_out)
        try:
            FAMILIES[family](p)
        except Retry:
            continue
        if r.chance(0.2):
            p.distract()
        return " ".join(p.facts + [p.question]), " ".join(p.lines) + f" #### {p.result}", str(p.result), p.steps


def training_problem(seed):
    """Token ids of a problem to train on: question, <sep>, solution, <eos>."""
    r = Random(seed * 2 + 1)
    family = r.of(HARD + HARD[:2]) if r.chance(TRAINING_SHARE_OF_HARD) else r.of(EASY)
    question, solution, _, _ = make(seed * 2, family.__name__, False)
    return words_to_ids(question) + [SEP] + words_to_ids(solution) + [EOS]


def training_row(seed, length):
    """<bos>, then problems end to end; the last one is cut."""
    row, i = [BOS], 0
    while len(row) < length:
        row += training_problem(seed * 64 + i)
        i += 1
    return row[:length]


def held_out_problem(number, family, seed, offset):
    question, solution, answer, steps = make(seed, family, True)
    prompt = [BOS] + words_to_ids(question) + [SEP]
    completion = words_to_ids(solution) + [EOS]
    text = {"question": pretty(question), "solution": pretty(solution)}
    assert encode(text["question"]) == prompt[1:-1] and encode(text["solution"]) == completion[:-1], text
    return {"id": number, "family": family, "difficulty": steps + 2 * (family in HELD_OUT_HARD), "offset": offset, **text,
            "answer": answer, "prompt_ids": prompt, "solution_ids": completion}


def held_out_problems(seed=20260101, counts=None):
    """The problems of problems.jsonl in order: families take turns, offsets alternate within a family."""
    if counts is None:
        easy = HELD_OUT_PROBLEMS - sum(HELD_OUT_HARD.values())
        counts = {f.__name__: easy // len(EASY) for f in EASY}
        counts.update(HELD_OUT_HARD)
    problems, seen = [], set()
    for turn in range(max(counts.values())):
        for f, count in counts.items():
            # Families with fewer problems are spread over all turns.
            if turn * count // max(counts.values()) == (turn + 1) * count // max(counts.values()):
                continue
            place = turn * count // max(counts.values())
            while True:
                seed += 1
                p = held_out_problem(len(problems), f, seed * 1000003, OFFSETS[place % 2])
                if p["question"] not in seen:
                    break
            seen.add(p["question"])
            problems.append(p)
    return problems


def files():
    lines = "".join(json.dumps(p, separators=(",", ":")) + "\n" for p in held_out_problems())
    return {"problems.jsonl": lines, "vocab.json": json.dumps(TOKENS, indent=0) + "\n"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "data/gsm8k")
    args = parser.parse_args()
    if args.show:
        for family in FAMILIES:
            for i in range(args.show):
                p = held_out_problem(i, family, 77 + i, 0)
                print(f"[{family} {p['difficulty']}, {len(p['prompt_ids'])} + {len(p['solution_ids'])} tokens]\n"
                      f"{p['question']}\n  {p['solution']}")
        return 0
    wrong = 0
    for name, text in files().items():
        path = args.out / name
        if args.check:
            same = path.exists() and path.read_text() == text
            print(f"{path}: {'as generated' if same else 'differs from what the generator writes'}")
            wrong += not same
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"{path}: {len(text)} bytes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
