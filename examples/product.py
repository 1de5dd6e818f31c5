"""A product in about 20 lines: it asks the policy, sees what became of it, and says so.

Run `tacit up`, then: TACIT_API_KEY=$(cat .tacit/keys/product.key) python examples/product.py
"""

import os

from openai import OpenAI

from collector.client import TacitClient

KEY = os.environ["TACIT_API_KEY"]
policy = OpenAI(base_url="http://127.0.0.1:8001/v1", api_key=KEY)

# With a spool, what was said survives this process: the next one sends it.
with TacitClient("http://127.0.0.1:8000", api_key=KEY, source="product", spool="spool") as tacit:
    question = [{"role": "user", "content": "i was charged twice for the same order"}]
    answer = policy.chat.completions.create(
        model="default", messages=question, user="u-1", temperature=0
    )
    print(answer.model, "says:", answer.choices[0].message.content)

    # One of these, whenever the product knows; minutes or days later is fine.
    tacit.outcome(answer, True, subject_id="u-1")
    tacit.rate(answer, 4, low=1, high=5, subject_id="u-2")
    event_id = tacit.correct(answer, "billing: refund duplicate charge", subject_id="u-3")
    tacit.flush()
    print("acknowledged:", answer.id, tacit.status(event_id).status)
