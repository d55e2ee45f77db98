"""`python -m stream.cli`, the same as `sam2-stream`. Owns nothing; runs in the main thread; never does more."""

import sys

from stream.cli import main

sys.exit(main())
