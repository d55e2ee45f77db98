"""Configuration: frozen `values`, their `checks`, read from a TOML file (`load`) or from a command line (`flags`)."""

from stream.config.flags import PromptFlags, config_from_flags, marks_from_flags, treatment_from_flags
from stream.config.load import load_config
from stream.config.treatment import MEMORY_POLICIES, EnhanceOptions, MemoryPolicy, RefineOptions
from stream.config.values import BACKENDS, MODELS, CameraConfig, Config, ConfigError, PromptConfig, redact

__all__ = [
    "BACKENDS",
    "MEMORY_POLICIES",
    "MODELS",
    "CameraConfig",
    "Config",
    "ConfigError",
    "EnhanceOptions",
    "MemoryPolicy",
    "PromptConfig",
    "PromptFlags",
    "RefineOptions",
    "config_from_flags",
    "load_config",
    "marks_from_flags",
    "redact",
    "treatment_from_flags",
]
