import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from gateway.stores.orders import orders


async def test_an_error_does_not_tell_what_was_to_be_written(engines):
    row = {"upstream": "the value", "action": None, "given": 1.0}
    with pytest.raises(SQLAlchemyError) as raised:
        async with engines[0].begin() as connection:
            await connection.execute(sa.insert(orders), [row, row])
    assert "INSERT INTO orders" in str(raised.value)
    assert "the value" not in str(raised.value).partition("DETAIL")[0]
