"""Every error a caller may catch, drawn as a tree.

    LlavaNextVideoError
    |-- ConfigError            a setting, flag or config.json that cannot be honoured
    |   |-- CheckpointError    a model folder that cannot be loaded as it is
    |   `-- MissingExtraError  an optional dependency that is not installed
    |-- MediaError             a clip or picture that cannot be read
    |   `-- MediaLimitError    a clip or picture larger than the limits allow
    |-- PromptError            messages, placeholders and media that do not agree
    |-- SamplingError          a generation setting outside its range
    |-- CapacityError          more tokens, pages or bytes than there is room for
    `-- DataError              a training sample that cannot be used (file and line)

Each message says what was given, what was expected, and the way out.
"""


class LlavaNextVideoError(Exception):
    """Anything this package refuses to do on purpose; its text is one sentence for a user."""


class ConfigError(LlavaNextVideoError):
    """A setting, flag or config.json that cannot be honoured."""


class CheckpointError(ConfigError):
    """A model folder that cannot be loaded as it is: missing, corrupt or unsafe files, missing keys."""


class MissingExtraError(ConfigError, ImportError):
    """An optional dependency that is not installed; the message names the extra."""


class MediaError(LlavaNextVideoError):
    """A clip or picture that cannot be read."""


class MediaLimitError(MediaError):
    """A clip or picture larger than the limits on bytes, pixels, frames or seconds allow."""


class PromptError(LlavaNextVideoError):
    """Messages, placeholders and media that do not agree."""


class SamplingError(LlavaNextVideoError):
    """A generation setting outside its range."""


class CapacityError(LlavaNextVideoError):
    """More tokens, pages or bytes than there is room for; the message has both numbers."""


class DataError(LlavaNextVideoError):
    """A training sample that cannot be used; the message starts with file and line."""
