"""`python -m coinfer`."""

from coinfer.cli import main

main()
