"""``python -m pycomm`` is the command ``pycomm``."""

from pycomm.cli import main

if __name__ == "__main__":
    main()
