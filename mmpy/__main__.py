"""`python -m mmpy`: the same as the command `mmpy`."""

from mmpy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
