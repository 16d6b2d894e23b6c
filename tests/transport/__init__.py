"""One suite for every transport, against a server that answers in every wrong way."""
