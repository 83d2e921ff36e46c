from .cli import TrainingCLI as TrainingCLI
from .cli import check_config_files as check_config_files
from .cli import train as train
from .parser import command_parser as command_parser
from .parser import option_names as option_names
from .run_config import RunConfig as RunConfig
from .run_config import read_run_config as read_run_config
from .shipped_configs import config_path as config_path
