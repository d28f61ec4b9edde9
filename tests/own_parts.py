"""A strategy of one's own, which configurations of the tests name by its import path."""

from efficient_rl.strategies.static import FirstK


class OwnStrategy(FirstK):
    """Trains the first blocks, under a name that is not the package's."""
