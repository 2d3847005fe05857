"""Learning: recipes, tunable parts, objectives and one loop."""

import logging

# PEFT imports bitsandbytes, which tells everybody about kernels for 4-bit weights that it did not find.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
