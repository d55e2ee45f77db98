"""What is wrong with this machine, or with a configuration on it, and the command that mends it.

`examine` looks at everything, `finding` is one result; the rest are the things looked at: the `machine`, the `engines`,
the `setup`, the `limits`, the `cameras`, and the `sandbox` of the service.
"""

from stream.doctor.examine import examine
from stream.doctor.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]
