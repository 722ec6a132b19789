"""The world that the agent acts in: a shop, fresh for every row."""

import pytest


def function(name, description, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


class Shop:
    """A shop with two orders. Its public methods are the tools."""

    TOOLS = (
        function("look_up", "Look an order up.", order={"type": "string"}),
        function("refund", "Refund part of an order.", order={"type": "string"}, cents={"type": "integer"}),
    )

    def __init__(self):
        self.orders = {"A17": {"cents": 1250, "delivered": False}, "B02": {"cents": 9900, "delivered": True}}
        self.refunds = {}

    def look_up(self, order):
        return self.orders.get(order, "there is no such order")

    def refund(self, order, cents):
        if order not in self.orders:
            return "there is no such order"
        if cents > self.orders[order]["cents"]:
            return "this is more than the order cost"
        self.refunds[order] = cents
        return "done"

    def use(self, tool, arguments):
        """What a tool answers. A mistake of the agent is an answer too, from which it may recover."""
        if tool not in ("look_up", "refund"):
            return f"there is no tool {tool}"
        try:
            return getattr(self, tool)(**arguments)
        except TypeError as error:
            return f"wrong arguments: {error}"


@pytest.fixture
def shop():
    # A function fixture: rows that run at once do not see each other's refunds.
    return Shop()
