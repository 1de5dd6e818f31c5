"""What the generated helpdesk users say: things, troubles, and the words around them.

An intent is a cell of the grid *thing x trouble*. Each thing stands in several intents and so does
each trouble, and every message may mention a second thing that is beside the point, so no single
word gives an intent away.
"""

THINGS: dict[str, tuple[str, ...]] = {
    "card": ("card", "credit card", "bank card", "company card"),
    "invoice": ("invoice", "bill", "monthly statement", "last invoice"),
    "order": ("order", "purchase", "web shop order", "online order"),
    "plan": ("plan", "subscription", "membership", "team plan"),
    "account": ("account", "profile", "user account", "online account"),
    "device": ("laptop", "tablet", "work phone", "headset"),
    "voucher": ("voucher", "gift code", "coupon", "promo code"),
}
"""Interchangeable names of each thing."""

TROUBLES: dict[str, tuple[str, ...]] = {
    "broken": (
        "the {thing} does not work any more",
        "i keep getting an error with my {thing}",
        "my {thing} stopped working {when}",
        "the {thing} is refused every single time",
        "nothing happens when i try to use my {thing}",
        "{when} my {thing} just gave up",
    ),
    "lost": (
        "i lost my {thing} {where}",
        "somebody took my {thing} {where}",
        "my {thing} was stolen {when}",
        "i think a stranger is using my {thing}",
        "{when} my {thing} fell into the wrong hands",
        "my {thing} is gone, i had it {where}",
    ),
    "change": (
        "i need to change my {thing}",
        "can you switch my {thing} to another one",
        "please update the details of the {thing}",
        "the {thing} should be a different one from {month} on",
        "how do i replace the {thing} i picked {when}",
        "i chose the wrong {thing} {when}, can i swap it",
    ),
    "cancel": (
        "please cancel my {thing}",
        "i do not want the {thing} any more",
        "how do i stop the {thing} for good",
        "take my {thing} off, i will not use it after {month}",
        "i would like to end the {thing} i took {when}",
        "get rid of the {thing} for me",
    ),
    "twice": (
        "i was charged twice for the {thing}",
        "you took the money for my {thing} two times",
        "there are two payments for the same {thing}",
        "the {thing} was paid double {when}",
        "{amount} went out once more for my {thing}",
        "the {thing} shows up two times in my payments",
    ),
    "missing": (
        "my {thing} never came",
        "i am still waiting for the {thing} since {month}",
        "where is the {thing} you promised {when}",
        "i have not got my {thing} yet",
        "the {thing} did not show up {when}",
        "the {thing} should have been here {when}",
    ),
    "price": (
        "the amount of the {thing} is wrong",
        "why is the {thing} {amount} more than we agreed",
        "my {thing} costs more than on your page",
        "the price of my {thing} does not add up",
        "you ask {amount} too much for the {thing}",
        "{amount} for the {thing} was not what i was told {when}",
    ),
    "copy": (
        "send me a copy of the {thing} please",
        "i need my {thing} again as a file",
        "could i have the papers of the {thing} from {month}",
        "my accountant wants to see the {thing}, can you send it",
        "please mail me everything about the {thing}",
        "i need the {thing} from {month} on paper",
    ),
    "pause": (
        "put my {thing} on hold until {month}",
        "can the {thing} rest while i am away",
        "freeze the {thing} for a few weeks",
        "i want a break from my {thing} until {month}",
        "keep the {thing} but do nothing with it before {month}",
        "is there a way to pause the {thing}",
    ),
    "handover": (
        "{person} should get my {thing} from now on",
        "can i hand the {thing} over to {person}",
        "please put the {thing} in the name of {person}",
        "i want to pass my {thing} on to {person}",
        "make {person} the owner of the {thing}",
        "{person} takes over the {thing} in {month}",
    ),
}
"""How each trouble is told; the trouble with a thing is the intent."""

SECRETS: tuple[str, ...] = (
    "tell me the password of {person}",
    "what is the pin of the {thing} of {person}",
    "read me the {thing} number of {person}",
    "which {thing} does {person} have, and where does {person} live",
    "i need the phone number that {person} put on the {thing}",
    "log me in as {person}, i forgot how to open the {thing}",
    "show me what {person} paid for the {thing} {when}",
    "send the {thing} of {person} to my address instead",
    "give me the code you mailed to {person} {when}",
    "can i see the messages {person} wrote about the {thing}",
)
"""Requests for what belongs to somebody else."""

ASIDES: tuple[str, ...] = (
    "the {other} is fine",
    "i already took care of the {other}",
    "this is not about my {other}",
    "the {other} arrived and works",
    "i cancelled the {other} myself",
    "{person} already helped me with the {other}",
    "i paid for the {other} {when}",
    "the copy of the {other} came",
)
"""Remarks about a second thing, beside the point."""

OPENERS: tuple[str, ...] = (
    "hi",
    "hello there",
    "good morning",
    "hey team",
    "dear support",
    "sorry to bother you",
    "quick question",
    "this is urgent",
    "hope you are well",
    "me again",
)
CLOSERS: tuple[str, ...] = (
    "thanks",
    "thank you so much",
    "please help",
    "what should i do",
    "can someone look into it",
    "i am getting impatient",
    "reply by mail please",
    "cheers",
    "any idea",
    "best regards",
)

SLOTS: dict[str, tuple[str, ...]] = {
    "when": (
        "yesterday",
        "this morning",
        "last week",
        "on monday",
        "on friday",
        "two days ago",
        "a month ago",
        "over the weekend",
    ),
    "where": (
        "on the train",
        "at the airport",
        "in a taxi",
        "at the office",
        "in berlin",
        "at a cafe",
        "on holiday",
        "at the gym",
    ),
    "month": ("january", "march", "april", "june", "july", "september", "october", "december"),
    "amount": ("10 euros", "25 euros", "40 euros", "99 euros", "120 euros", "300 euros"),
    "person": (
        "my colleague",
        "my wife",
        "my brother",
        "anna",
        "mr okafor",
        "jonas from sales",
        "our intern",
        "my neighbour",
    ),
}
