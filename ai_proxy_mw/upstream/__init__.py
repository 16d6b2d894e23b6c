"""How a call leaves the house: the Transport protocol and what implements it."""
