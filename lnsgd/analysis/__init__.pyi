from .analyses import analyze as analyze
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .pairs import ComparisonSettings as ComparisonSettings
from .pairs import How as How
