"""Reports: claims, pictures, sweeps, runs and analyses on one HTML page that needs nothing but itself."""

from lnsgd.report.find import read_folders
from lnsgd.report.page import render

__all__ = ["read_folders", "render"]
