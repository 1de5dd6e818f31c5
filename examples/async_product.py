"""The same product on asyncio, with a streamed answer.

Run `tacit up`, then: TACIT_API_KEY=$(cat .tacit/keys/product.key) python examples/async_product.py
"""

import asyncio
import os

from openai import AsyncOpenAI

from collector.client import AsyncTacitClient

KEY = os.environ["TACIT_API_KEY"]


async def main() -> None:
    """Ask, stream the answer, and say what the user thought of it."""
    url = "http://127.0.0.1:8000"
    async with (
        AsyncOpenAI(base_url="http://127.0.0.1:8001/v1", api_key=KEY) as policy,
        AsyncTacitClient(url, api_key=KEY, source="product", spool="spool") as tacit,
    ):
        question = [{"role": "user", "content": "i was charged twice for the same order"}]
        stream = await policy.chat.completions.create(
            model="default", messages=question, user="u-1", temperature=0, stream=True
        )
        async for chunk in stream:
            print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
        # Every chunk carries the id of the answer.
        await tacit.thumb(chunk, up=False, subject_id="u-1")
        await tacit.correct(chunk, "billing: refund duplicate charge", subject_id="u-1")
        await tacit.flush()
        print("\nacknowledged:", chunk.id)


asyncio.run(main())
