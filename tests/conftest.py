"""What every test gets: shape checks switched on."""

from jaxtyping import install_import_hook

install_import_hook("llava_next_video", "beartype.beartype")
