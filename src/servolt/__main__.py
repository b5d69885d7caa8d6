"""`python -m servolt`."""

from servolt.cli.main import main

if __name__ == "__main__":
    main()
