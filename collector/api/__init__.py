"""The HTTP interface: who may send, what a request carries, what it is answered."""
