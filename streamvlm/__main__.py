"""`python -m streamvlm`."""

from streamvlm.cli import main

if __name__ == "__main__":
    main()
