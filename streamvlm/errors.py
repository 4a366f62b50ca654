"""Every exception StreamVLM raises for something that a user can mend.

    StreamVLMError
    ├── ConfigError            the configuration cannot work as written
    │   ├── UnknownPlugin      no plug-in of that name
    │   └── BadOption          a plug-in has no such option, or the value does not fit
    ├── SourceError            a file, folder, URL or camera cannot be read
    ├── ModelError             weights cannot be loaded, or cannot take what they were given
    ├── MemoryStoreError       a memory folder cannot be opened, read or written
    └── MissingDependency      an optional package is not installed

Each message is one sentence or two: what was found, what was expected, what to do next.
"""


class StreamVLMError(Exception):
    """The root: catch this to catch everything that a user can mend."""


class ConfigError(StreamVLMError):
    """The configuration cannot work as written."""


class UnknownPlugin(ConfigError):
    """No plug-in of that kind has that name."""


class BadOption(ConfigError):
    """A plug-in has no such option, or the value does not fit it."""


class SourceError(StreamVLMError):
    """A file, folder, URL or camera cannot be read."""


class ModelError(StreamVLMError):
    """Weights cannot be loaded, or cannot take what they were given."""


class MemoryStoreError(StreamVLMError):
    """A memory folder cannot be opened, read or written."""


class MissingDependency(StreamVLMError):
    """An optional package is not installed."""
