import asyncio

import pytest

from r1mm.endpoint.budget import NOTHING, Budget, Prices, Purse, Usage, most_tokens


def test_prices_are_of_a_million_tokens() -> None:
    assert Prices(4.0, 16.0).cost(Usage(500_000, 250_000)) == pytest.approx(6.0)
    assert Prices().cost(Usage(10**9, 10**9)) == 0.0


def test_a_prompt_has_no_more_tokens_than_bytes_and_a_picture_its_most() -> None:
    assert most_tokens([{"role": "user", "content": "äb"}], 100) == Usage(64 + 3, 100)
    parts = [{"type": "text", "text": "abc"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": parts}]
    assert most_tokens(messages, 1) == Usage(2 * 64 + 1 + 3 + 16_384, 1)


def test_what_is_under_way_counts_as_spent_until_it_is_known() -> None:
    async def scene() -> None:
        purse = Purse(Budget(tokens=100), Prices(), before=Usage(10, 10))
        most = Usage(10, 30)
        assert await purse.take(most)
        assert await purse.take(most)
        third = asyncio.create_task(purse.take(most))
        await asyncio.sleep(0)
        assert not third.done()  # 20 + 40 + 40: full
        purse.settle(most, Usage(5, 5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not third.done()  # 30 + 40 + 40
        purse.settle(most, NOTHING)
        assert await third  # 30 + 40
        purse.settle(most, None)  # 30 + 40, which may have been taken
        assert (purse.spent, purse.guessed, purse.unsaid) == (Usage(15, 15), most, 1)
        assert not await purse.take(most)  # nobody is under way who could leave room
        assert await purse.take(Usage(10, 20))

    asyncio.run(scene())


def test_money_and_tokens_both_bind() -> None:
    async def scene() -> None:
        purse = Purse(Budget(money=1.0, tokens=10**6), Prices(prompt=1.0, completion=10.0), NOTHING)
        assert not await purse.take(Usage(0, 100_001))
        assert await purse.take(Usage(0, 100_000))
        purse = Purse(Budget(money=1.0, tokens=1000), Prices(prompt=1.0, completion=10.0), NOTHING)
        assert not await purse.take(Usage(1, 1000))

    asyncio.run(scene())
