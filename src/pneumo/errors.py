"""User errors. Each message names the setting, its value, the rule and the fix, in one paragraph."""


class PneumoError(Exception):
    """A mistake that its user can mend; entry points print it without a traceback and exit with status 1."""


class ConfigError(PneumoError):
    """A setting has a value that cannot work."""


class DataError(PneumoError):
    """The data set is missing, incomplete or unreadable."""


class WeightsError(PneumoError):
    """Pretrained weights cannot be found, fetched or fitted to the network."""


class HardwareError(PneumoError):
    """The machine lacks what the configuration demands."""


class TrainingError(PneumoError):
    """Training cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss is infinite or no number: the settings that were tried do not work."""


class CacheError(PneumoError):
    """A cache cannot be written."""
