"""The list of packages, which pyproject.toml cannot express: rooms are found, folders are mapped.

setuptools either finds packages or takes a list. The rooms of `uebench/` should be found, so that
a new one needs no entry here; the top-level folders are installed as `uebench.attacks` and so on.
"""

from setuptools import find_packages, setup

MAPPED = {
    "uebench.attacks": "attacks",
    "uebench.defenses": "defenses",
    "uebench.configs": "configs",
    "uebench.published": "results/published",
}

setup(
    packages=[*find_packages(include=["uebench", "uebench.*"]), *MAPPED],
    package_dir={"uebench": "uebench", **MAPPED},
)
