from .find import read_folders as read_folders
from .page import render as render
