"""Headers of Kafka messages as no well-behaved client writes them."""


class OddName(str):
    """A header's name that is no UTF-8, which Kafka takes from anybody."""

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1")
