"""r1mm: does an R1-style result on a vision-language model reproduce, and if not, why?"""

import logging

__version__ = "0.1.0"

# Wherever deepspeed is installed TRL imports it, and on a CPU it says so on standard output, where r1mm's answers go.
logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
