"""r1mm: does an R1-style result on a vision-language model reproduce, and if not, why?"""

__version__ = "0.1.0"
