"""``python -m pyro_probmix.cli``."""

from pyro_probmix.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
