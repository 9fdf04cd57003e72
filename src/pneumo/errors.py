"""User errors. Each message names the setting, its value, the rule and the fix, in one paragraph."""


class PneumoError(Exception):
    """An error that the user can fix; entry points print it without a traceback and exit with status 1."""


class ConfigError(PneumoError):
    """A setting has an invalid value."""


class DataError(PneumoError):
    """The data set is missing, incomplete or unreadable."""


class WeightsError(PneumoError):
    """Pretrained weights are missing, cannot be downloaded or do not fit the network."""


class HardwareError(PneumoError):
    """The machine does not meet the configuration's requirements."""


class TrainingError(PneumoError):
    """Training cannot continue."""


class NonFiniteLossError(TrainingError):
    """The loss is infinite or NaN, so these hyperparameters do not work."""


class CacheError(PneumoError):
    """A cache cannot be written."""
