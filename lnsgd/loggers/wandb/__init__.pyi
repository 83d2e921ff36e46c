from .group import WandbGroup as WandbGroup
from .identifiers import check_project as check_project
from .logger import WandbLogger as WandbLogger
from .results import Results as Results
from .results import send_results as send_results
